# As aib, with a quantised map.
_base_ = './wrn28-10-aib_1xb128-200e_svhn.py'

model = dict(neck=dict(bottleneck=dict(quantizer=dict(num_anchors=50))))
