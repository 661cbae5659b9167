# As aib, with a quantised map.
_base_ = './aib_beit-base_upernet_4xb2-accum2-160k_ade20k-512x512.py'

model = dict(
    neck=dict(
        bottleneck=dict(
            quantizer=dict(
                _delete_=True,
                num_anchors=20,
                vq_weight=0.4,
                commit_weight=0.1))))
