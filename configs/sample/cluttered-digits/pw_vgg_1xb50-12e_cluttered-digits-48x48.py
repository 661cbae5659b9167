# The position-wise map that [RECT] compares with, narrowed as the rest is.
_base_ = './vgg_1xb50-12e_cluttered-digits-48x48.py'

model = dict(
    type='mmaib.AIBImageClassifier',
    neck=dict(
        _delete_=True,
        type='mmaib.AIBNeck',
        where='before',
        neck=dict(type='GlobalAveragePooling'),
        in_channels=64,
        bottleneck=dict(
            attention=dict(type='mmaib.PositionWiseAttention', channels=20),
            modulation=dict(mode='scale_residual', rescale=True))))
