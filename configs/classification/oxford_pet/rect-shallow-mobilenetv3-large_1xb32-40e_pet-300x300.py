# The same with a rectangle.
_base_ = './pw-shallow-mobilenetv3-large_1xb32-40e_pet-300x300.py'

model = dict(
    backbone=dict(
        bottleneck=dict(
            attention=dict(type='mmaib.RectangularAttention', sharpness=6.0),
            modulation=dict(mode='scale_residual', rescale=True))))
