# Rectangular attention, with the rescaling of Eq. 7.
_base_ = './pw-mobilenetv3-large_1xb32-40e_pet-300x300.py'

model = dict(
    neck=dict(
        bottleneck=dict(
            attention=dict(type='mmaib.RectangularAttention', sharpness=6.0),
            modulation=dict(mode='scale_residual', rescale=True))))
