# The position-wise map that [RECT] compares with.
_base_ = './efficientnet-b0_1xb32-40e_pet-300x300.py'

model = dict(
    type='mmaib.AIBImageClassifier',
    neck=dict(
        _delete_=True,
        type='mmaib.AIBNeck',
        where='before',
        neck={{_base_.model.neck}},
        in_channels=320,
        bottleneck=dict(
            attention=dict(type='mmaib.PositionWiseAttention'),
            modulation=dict(mode='scale_residual'))))
