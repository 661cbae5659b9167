# With mmseg's schedule: lr 3e-5, layer decay 0.9.
_base_ = './aib_beit-base_upernet_8xb2-160k_ade20k-512x512.py'

optim_wrapper = dict(
    optimizer=dict(lr=3e-5), paramwise_cfg=dict(decay_rate=0.9))
