# As aib, with a quantised map.
_base_ = './aib_vgg16_1xb128-8e_cifar10-jpeg.py'

model = dict(neck=dict(bottleneck=dict(quantizer=dict(num_anchors=20))))
