# An information gate. Gate and loss fade in once digits are distinguished:
# before that, no feature is worth its bits.
_base_ = './pw_vgg_1xb50-12e_cluttered-digits-48x48.py'

model = dict(
    neck=dict(
        bottleneck=dict(
            attention=dict(
                _delete_=True,
                type='mmaib.VariationalAttention',
                mean_bias=1.0),
            modulation=dict(
                _delete_=True, type='mmaib.InformationGate', beta=0.03))))
custom_hooks = [dict(type='mmaib.BetaWarmupHook', begin=120, end=240)]
