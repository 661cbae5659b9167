# As aib, with a quantised map. The authors' code has another start for it: an
# epoch at 0.001, one at 0.01. Factors multiply.
_base_ = './vgg16-aib_1xb128-200e-released_cifar10.py'

model = dict(neck=dict(bottleneck=dict(quantizer=dict(num_anchors=20))))
param_scheduler = [
    dict(type='ConstantLR', by_epoch=True, factor=0.1, begin=0, end=2),
    dict(type='ConstantLR', by_epoch=True, factor=0.1, begin=0, end=3),
    dict(type='StepLR', by_epoch=True, step_size=25, gamma=0.5),
]
