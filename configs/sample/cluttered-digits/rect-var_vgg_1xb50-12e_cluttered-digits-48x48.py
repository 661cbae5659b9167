# A variational rectangle: its five parameters are drawn and have a price.
_base_ = './rect_vgg_1xb50-12e_cluttered-digits-48x48.py'

model = dict(
    neck=dict(
        bottleneck=dict(attention=dict(variational=True, beta=0.001))))
