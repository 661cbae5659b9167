# As aib, with a quantised map.
_base_ = './aib_beit-base_upernet_8xb2-160k_ade20k-640x640.py'

model = dict(
    neck=dict(
        bottleneck=dict(
            quantizer=dict(_delete_=True, num_anchors=20))))
