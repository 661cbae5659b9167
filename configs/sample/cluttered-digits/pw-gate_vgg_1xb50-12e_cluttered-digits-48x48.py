# The position-wise map in an information gate: what passes is stretched, so
# that a digit is not thinned out in the pooling. It fades in from the start.
_base_ = './pw_vgg_1xb50-12e_cluttered-digits-48x48.py'

model = dict(
    neck=dict(
        bottleneck=dict(
            modulation=dict(
                _delete_=True,
                type='mmaib.InformationGate', beta=0.01, rescale=True))))
custom_hooks = [dict(type='mmaib.BetaWarmupHook', end=60)]
