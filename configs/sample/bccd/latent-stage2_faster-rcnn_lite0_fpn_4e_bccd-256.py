# Uncertainty for a trained detector: all before its head's latents frozen;
# latents, stds and predictors learn. load_from is a checkpoint of
# faster-rcnn_lite0_fpn_12e_bccd-256.py.
_base_ = './faster-rcnn_lite0_fpn_12e_bccd-256.py'

model = dict(
    type='mmaib.AIBFasterRCNN',
    frozen='features',
    test_draws=dict(
        latent=8, average='probabilities', uncertainty=True),
    roi_head=dict(
        type='mmaib.AIBRoIHead',
        bbox_head=dict(
            type='mmaib.AIBShared2FCBBoxHead',
            latent=dict(beta=0.01, std_shift=1.0))))
max_epochs = 4
train_cfg = dict(max_epochs=max_epochs, val_interval=max_epochs)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=False, end=50),
    dict(
        type='CosineAnnealingLR',
        T_max=max_epochs,
        end=max_epochs,
        by_epoch=True,
        convert_to_iter_based=True),
]
val_evaluator = [
    {{_base_.val_evaluator}},
    dict(type='mmaib.DetectionCalibrationMetric'),
]
test_evaluator = val_evaluator
