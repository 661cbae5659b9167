# As gate, with a quantised map.
_base_ = './gate_faster-rcnn_lite0_fpn_6e_trees-256.py'

model = dict(neck=dict(bottleneck=dict(quantizer=dict(num_anchors=20))))
