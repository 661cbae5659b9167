# As aib, with a quantised map.
_base_ = './aib_faster-rcnn_lite0_fpn_12e_bccd-256.py'

model = dict(
    neck=dict(
        bottleneck=dict(
            quantizer=dict(_delete_=True, num_anchors=20))))
