# Uncertainty for a trained classifier: its features frozen; latent, std and
# classifier learn. load_from is a checkpoint of
# vgg16-x0.125_1xb128-16e_cifar10-subset.py, whose two linear layers are the
# latent's mean and the classifier.
_base_ = './vgg16-x0.125_1xb128-16e_cifar10-subset.py'

model = dict(
    type='mmaib.AIBImageClassifier',
    frozen='features',
    test_draws=dict(latent=16, average='probabilities', uncertainty=True),
    head=dict(
        _delete_=True,
        type='mmaib.AIBClsHead',
        num_classes=10,
        in_channels=64,
        latent_channels=32,
        decoder='relu',
        latent=dict(beta=0.3, std_shift=1.0)))
optim_wrapper = dict(
    optimizer=dict(_delete_=True, type='AdamW', lr=1e-3, weight_decay=0.05))
param_scheduler = dict(
    _delete_=True,
    type='CosineAnnealingLR',
    T_max=8,
    end=8,
    by_epoch=True,
    convert_to_iter_based=True)
train_cfg = dict(max_epochs=8, val_interval=8)
val_evaluator = [
    {{_base_.val_evaluator}},
    dict(type='mmaib.CalibrationMetric'),
]
test_evaluator = val_evaluator
