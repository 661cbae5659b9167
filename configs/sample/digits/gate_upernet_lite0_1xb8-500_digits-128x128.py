# An information gate on the backbone's features: one map at stride 16, what it
# removes becomes noise, and what passes has a price in nats.
_base_ = './upernet_lite0_1xb8-500_digits-128x128.py'

model = dict(
    type='mmaib.AIBEncoderDecoder',
    neck=dict(
        type='mmaib.AIBNeck',
        map='shared',
        in_channels=[24, 40, 112, 320],
        map_level=2,
        bottleneck=dict(
            attention=dict(mean_bias=1.0),
            modulation=dict(type='mmaib.InformationGate', beta=0.01))))
# gate and price fade in over the first half
custom_hooks = [dict(type='mmaib.BetaWarmupHook', end=250)]
