# AdamW moves a logit by its step times the number of inputs, some thousands
# here: at the full rate the map saturates and the KL sets the stds at once.
_base_ = './adamw_cosine_500.py'

optim_wrapper = dict(
    paramwise_cfg=dict(
        custom_keys={
            'bottleneck.attention': dict(lr_mult=0.01),
            'encoder.std': dict(lr_mult=0.01),
        }))
