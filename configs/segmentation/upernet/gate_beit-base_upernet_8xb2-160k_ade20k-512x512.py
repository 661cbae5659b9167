# Ours, no paper's: an information gate on BEiT's token grids, one map for all
# four. What attention removes becomes noise, what passes has a price in nats.
# Gate and price fade in over the first half. Not run.
_base_ = './beit-base_upernet_8xb2-160k_ade20k-512x512.py'

model = dict(
    type='mmaib.AIBEncoderDecoder',
    neck=dict(
        _delete_=True,
        type='mmaib.AIBNeck',
        neck={{_base_.model.neck}},
        where='before',
        map='shared',
        in_channels=[768, 768, 768, 768],
        bottleneck=dict(
            attention=dict(mean_bias=1.0),
            modulation=dict(type='mmaib.InformationGate', beta=0.01))))
custom_hooks = [dict(type='mmaib.BetaWarmupHook', end=80000)]
