# An information gate on the pyramid: what attention removes becomes noise,
# and what passes has a price in nats.
_base_ = './faster-rcnn_lite0_fpn_12e_bccd-256.py'

model = dict(
    type='mmaib.AIBFasterRCNN',
    neck=dict(
        _delete_=True,
        type='mmaib.AIBNeck',
        neck={{_base_.model.neck}},
        bottleneck=dict(
            attention=dict(mean_bias=1.0),
            modulation=dict(type='mmaib.InformationGate', beta=0.02))))
# gate and price fade in over the first half
custom_hooks = [dict(type='mmaib.BetaWarmupHook', end=312)]
