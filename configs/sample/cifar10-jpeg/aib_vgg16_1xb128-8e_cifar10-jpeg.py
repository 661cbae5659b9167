# As aib-literal, with logits standardised over positions, so that the map
# cannot saturate.
_base_ = './aib-literal_vgg16_1xb128-8e_cifar10-jpeg.py'

model = dict(neck=dict(bottleneck=dict(attention=dict(logit_norm=True))))
