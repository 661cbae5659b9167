# Four small GPUs, as the paper trained: two iterations make one update of 16
# images, so iterations and milestones are doubled.
_base_ = './aib_beit-base_upernet_8xb2-160k_ade20k-512x512.py'

optim_wrapper = dict(accumulative_counts=2)
# of an iteration: two of them make an update of 16
auto_scale_lr = dict(base_batch_size=8)
param_scheduler = [
    dict(
        type='LinearLR', start_factor=1e-6, by_epoch=False, begin=0, end=3000),
    dict(
        type='PolyLR',
        power=1.0,
        begin=3000,
        end=320000,
        eta_min=0.0,
        by_epoch=False,
    )
]
train_cfg = dict(max_iters=320000, val_interval=32000)
default_hooks = dict(checkpoint=dict(interval=32000))
