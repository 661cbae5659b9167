# Table 1 of [AIB]: the blocks of vgg16_cifar.py, cut where the map is made.
custom_imports = dict(imports=['mmaib'])

model = dict(
    type='mmaib.AIBImageClassifier',
    test_draws=dict(attention=4, latent=4, seed=0),
    backbone=dict(
        type='mmaib.VGGBlocks',
        channels=(64, 128, 256), depths=(2, 2, 3), pools=(False, False, True)),
    neck=dict(
        type='mmaib.AIBNeck',
        where='before',
        neck=dict(
            type='mmaib.VGGBlocks', in_channels=256,
            channels=(512, 512, 512, 512), depths=(3, 3, 1, 1),
            pools=(True, True, True, True), last_conv=512),
        bottleneck=dict(
            attention=dict(std_source='feature', std_kernel=3),
            modulation=dict(mode='scale_residual', init='paper'))),
    head=dict(
        type='mmaib.AIBClsHead',
        num_classes=10,
        in_channels=512,
        latent_channels=256,
        decoder='mlp',
        latent=dict(beta=0.01)))
