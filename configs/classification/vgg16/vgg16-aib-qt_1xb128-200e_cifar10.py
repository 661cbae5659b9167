# As aib, with a quantised map.
_base_ = './vgg16-aib_1xb128-200e_cifar10.py'

model = dict(neck=dict(bottleneck=dict(quantizer=dict(num_anchors=20))))
