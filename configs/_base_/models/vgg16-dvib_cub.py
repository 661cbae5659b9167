# The latent without attention: DVIB (Alemi et al., 2017).
_base_ = './vgg16_cub.py'

model = dict(
    type='mmaib.AIBImageClassifier',
    test_draws=dict(latent=4, seed=0),
    head=dict(
        _delete_=True,
        type='mmaib.AIBClsHead',
        num_classes=200,
        in_channels=512,
        latent_channels=256,
        decoder='mlp',
        latent=dict(beta=0.01)))
