# As gate, with a quantised map.
_base_ = './gate_upernet_lite0_1xb4-500_camvid-320x240.py'

model = dict(neck=dict(bottleneck=dict(quantizer=dict(num_anchors=20))))
