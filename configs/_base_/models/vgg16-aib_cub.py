# Table 4 of [AIB]: the map after block 5; pooling and a linear layer are the
# encoder.
_base_ = './vgg16-dvib_cub.py'

model = dict(
    test_draws=dict(attention=4, latent=4, seed=0),
    neck=dict(
        _delete_=True,
        type='mmaib.AIBNeck',
        in_channels=512,
        bottleneck=dict(
            attention=dict(std_source='feature', std_kernel=3),
            modulation=dict(mode='scale_residual', init='paper'))))
