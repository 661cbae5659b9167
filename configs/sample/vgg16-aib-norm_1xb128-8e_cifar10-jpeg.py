# As aib, with logits standardised over positions: the map cannot saturate.
_base_ = './vgg16-aib_1xb128-8e_cifar10-jpeg.py'

model = dict(neck=dict(bottleneck=dict(attention=dict(logit_norm=True))))
