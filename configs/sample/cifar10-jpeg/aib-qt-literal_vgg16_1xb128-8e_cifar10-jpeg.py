# As aib-literal, with a quantised map.
_base_ = './aib-literal_vgg16_1xb128-8e_cifar10-jpeg.py'

model = dict(neck=dict(bottleneck=dict(quantizer=dict(num_anchors=20))))
