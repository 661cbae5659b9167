# The same by [RECT]'s squared residual of all five parameters.
_base_ = './rect-equi-efficientnet-b0_1xb32-40e_pet-300x300.py'

model = dict(equivariance=dict(residual='l2'))
