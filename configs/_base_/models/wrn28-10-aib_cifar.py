# Table 1 of [AIB]: the map after block 2, its mean with a block 3 of its own
# at stride 1; block 3 is the encoder.
custom_imports = dict(imports=['mmaib'])

model = dict(
    type='mmaib.AIBImageClassifier',
    test_draws=dict(attention=4, latent=4, seed=0),
    backbone=dict(
        type='mmaib.WideResNetBlocks',
        stem=True,
        channels=(160, 320),
        strides=(1, 2)),
    neck=dict(
        type='mmaib.AIBNeck',
        where='before',
        neck=dict(
            type='mmaib.WideResNetBlocks',
            in_channels=320,
            channels=(640, ),
            strides=(2, ),
            last_norm=True),
        bottleneck=dict(
            attention=dict(
                std_source='feature',
                std_kernel=3,
                mean_trunk=dict(
                    type='mmaib.WideResNetBlocks',
                    in_channels=320,
                    channels=(640, ),
                    strides=(1, ))),
            modulation=dict(mode='scale_residual', init='paper'))),
    head=dict(
        type='mmaib.AIBClsHead',
        num_classes=10,
        in_channels=640,
        latent_channels=256,
        decoder='relu',
        latent=dict(beta=0.01)))
