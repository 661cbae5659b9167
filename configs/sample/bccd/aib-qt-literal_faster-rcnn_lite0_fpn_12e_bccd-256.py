# As aib-literal, with a quantised map.
_base_ = './aib-literal_faster-rcnn_lite0_fpn_12e_bccd-256.py'

model = dict(
    neck=dict(
        bottleneck=dict(
            quantizer=dict(_delete_=True, num_anchors=20))))
