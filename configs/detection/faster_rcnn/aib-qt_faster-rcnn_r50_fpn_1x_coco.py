# As aib, with a quantised map.
_base_ = './aib_faster-rcnn_r50_fpn_1x_coco.py'

model = dict(
    neck=dict(
        bottleneck=dict(
            quantizer=dict(
                _delete_=True,
                num_anchors=20,
                vq_weight=0.4,
                commit_weight=0.1))))
