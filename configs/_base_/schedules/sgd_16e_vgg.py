# The same eight rates as in 200 epochs, two epochs each.
_base_ = './sgd_200e_vgg.py'

param_scheduler = dict(step_size=2)
train_cfg = dict(max_epochs=16, val_interval=4)
