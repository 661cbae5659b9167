# Rectangular attention that follows a warp of its image, lambda = 0.1.
_base_ = './rect-mobilenetv3-large_1xb32-40e_pet-300x300.py'

model = dict(equivariance=dict(weight=0.1))
