# As gate, with a quantised map.
_base_ = './gate_faster-rcnn_lite0_fpn_12e_bccd-256.py'

model = dict(neck=dict(bottleneck=dict(quantizer=dict(num_anchors=20))))
