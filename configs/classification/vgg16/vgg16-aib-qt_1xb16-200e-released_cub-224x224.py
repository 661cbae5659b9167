# As aib, with a quantised map.
_base_ = './vgg16-aib_1xb16-200e-released_cub-224x224.py'

model = dict(neck=dict(bottleneck=dict(quantizer=dict(num_anchors=20))))
