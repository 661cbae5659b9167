# That rectangle in a rescaled information gate: bits pass through one window,
# whose edges are soft: with sharp ones some seeds never find the digit.
_base_ = './pw-gate_vgg_1xb50-12e_cluttered-digits-48x48.py'

model = dict(
    neck=dict(
        bottleneck=dict(
            attention=dict(
                type='mmaib.RectangularAttention',
                channels=(16, 32, 64), pooling='moments', sharpness=2.0))))
