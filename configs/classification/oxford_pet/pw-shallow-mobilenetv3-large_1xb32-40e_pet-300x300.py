# Fig. 7 of [RECT], a map after a shallower layer, the position-wise one. Which
# layer is mmaib's choice: block 12, 112 channels at twice the resolution.
_base_ = './mobilenetv3-large_1xb32-40e_pet-300x300.py'

model = dict(
    type='mmaib.AIBImageClassifier',
    backbone=dict(
        _delete_=True,
        type='mmaib.AttendedBackbone',
        backbone={{_base_.model.backbone}},
        at='layer12',
        in_channels=112,
        bottleneck=dict(
            attention=dict(type='mmaib.PositionWiseAttention'),
            modulation=dict(mode='scale_residual'))))
