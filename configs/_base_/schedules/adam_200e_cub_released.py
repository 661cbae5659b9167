# As in the authors' code: other betas, x0.97 every two epochs, fixed anchors.
_base_ = './adam_200e_cub.py'

optim_wrapper = dict(
    optimizer=dict(betas=(0.5, 0.999)),
    paramwise_cfg=dict(custom_keys={'quantizer.anchors': dict(lr_mult=0)}))
param_scheduler = dict(type='StepLR', by_epoch=True, step_size=2, gamma=0.97)
