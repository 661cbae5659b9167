# Uncertainty for a trained segmentor: all before its head's latent frozen;
# latent, std and predictor learn. load_from is a checkpoint of
# upernet_lite0_1xb4-500_camvid-320x240.py.
_base_ = './upernet_lite0_1xb4-500_camvid-320x240.py'

model = dict(
    type='mmaib.AIBEncoderDecoder',
    frozen='features',
    test_draws=dict(latent=8, average='probabilities', uncertainty=True),
    decode_head=dict(
        type='mmaib.AIBUPerHead',
        latent=dict(std_source='mean', beta=0.1, std_shift=1.0)))
max_iters = 200
train_cfg = dict(max_iters=max_iters, val_interval=200)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=False, end=20),
    dict(
        type='CosineAnnealingLR', T_max=max_iters, end=max_iters,
        by_epoch=False),
]
val_evaluator = [
    {{_base_.val_evaluator}},
    dict(type='mmaib.CalibrationMetric'),
]
test_evaluator = val_evaluator
