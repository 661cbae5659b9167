# Table 4 of [AIB]: the map after block 3, its mean with a block 4 of its own
# at stride 1; block 4 is the encoder. Both start from ImageNet's block 4.
_base_ = './wrn50-2_cub.py'

block4 = dict(
    type='mmaib.ResNetStage',
    in_channels=1024,
    out_channels=2048,
    num_blocks=3,
    expansion=2,
    init_cfg=dict(
        type='Pretrained',
        checkpoint={{_base_.checkpoint}},
        prefix='backbone.layer4'))
model = dict(
    type='mmaib.AIBImageClassifier',
    test_draws=dict(attention=4, latent=4, seed=0),
    backbone=dict(
        num_stages=3,
        strides=(1, 2, 2),
        dilations=(1, 1, 1),
        out_indices=(2, )),
    neck=dict(
        _delete_=True,
        type='mmaib.AIBNeck',
        where='before',
        neck=dict(stride=2, **block4),
        bottleneck=dict(
            attention=dict(
                std_source='feature',
                std_kernel=3,
                mean_trunk=dict(stride=1, **block4)),
            modulation=dict(mode='scale_residual', init='paper'))),
    head=dict(
        _delete_=True,
        type='mmaib.AIBClsHead',
        num_classes=200,
        in_channels=2048,
        latent_channels=256,
        decoder='mlp',
        latent=dict(beta=0.01)))
