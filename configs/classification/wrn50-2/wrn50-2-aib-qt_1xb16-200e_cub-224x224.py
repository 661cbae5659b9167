# As aib, with a quantised map.
_base_ = './wrn50-2-aib_1xb16-200e_cub-224x224.py'

model = dict(neck=dict(bottleneck=dict(quantizer=dict(num_anchors=50))))
