# The same, whose rectangle follows a warp of its image.
_base_ = './rect_vgg_1xb50-12e_cluttered-digits-48x48.py'

model = dict(equivariance=dict(weight=0.1))
