# As aib-literal, with a quantised map.
_base_ = './aib-literal_vgg16-x0.125_1xb128-16e_cifar10-subset.py'

model = dict(neck=dict(bottleneck=dict(quantizer=dict(num_anchors=20))))
