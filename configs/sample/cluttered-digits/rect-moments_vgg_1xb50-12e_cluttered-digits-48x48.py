# A rectangle from moments of features: where they are, not only how strong.
_base_ = './rect_vgg_1xb50-12e_cluttered-digits-48x48.py'

model = dict(neck=dict(bottleneck=dict(attention=dict(pooling='moments'))))
