# The same eight rates as in 200 epochs, an epoch each.
_base_ = './sgd_200e_vgg.py'

param_scheduler = dict(step_size=1)
train_cfg = dict(max_epochs=8, val_interval=4)
