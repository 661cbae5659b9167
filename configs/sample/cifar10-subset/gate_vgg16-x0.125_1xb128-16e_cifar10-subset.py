# An information gate before the encoder, beside the latent's KL. Gate and
# losses fade in over the first half.
_base_ = './aib-literal_vgg16-x0.125_1xb128-16e_cifar10-subset.py'

model = dict(
    neck=dict(
        bottleneck=dict(
            modulation=dict(
                _delete_=True, type='mmaib.InformationGate', beta=0.01))))
custom_hooks = [
    dict(type='mmaib.BetaWarmupHook', end=632),
    dict(
        type='mmaib.AttentionEvalHook',
        ablations=['mirror', 'flatten', 'shuffle']),
]
