# The same by [RECT]'s squared residual of all five parameters.
_base_ = './rect-equi_vgg_1xb50-12e_cluttered-digits-48x48.py'

model = dict(equivariance=dict(residual='l2'))
