# An information gate that is a rectangle: bits pass through one window, which
# starts open.
_base_ = './gate_vgg_1xb50-12e_cluttered-digits-48x48.py'

model = dict(
    neck=dict(
        bottleneck=dict(
            attention=dict(
                _delete_=True,
                type='mmaib.RectangularAttention',
                channels=(16, 32, 64),
                extent=0.6))))
