# A map that is a rectangle [RECT], narrowed as the rest is.
_base_ = './pw_vgg_1xb50-12e_cluttered-digits-48x48.py'

model = dict(
    neck=dict(
        bottleneck=dict(
            attention=dict(
                type='mmaib.RectangularAttention', channels=(16, 32, 64)))))
