# As gate, with a quantised map.
_base_ = './gate_upernet_lite0_1xb8-500_digits-128x128.py'

model = dict(neck=dict(bottleneck=dict(quantizer=dict(num_anchors=20))))
