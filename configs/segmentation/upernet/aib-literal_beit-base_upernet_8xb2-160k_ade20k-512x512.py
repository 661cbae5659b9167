# As the paper has it. Under this schedule the map saturates within 100 steps.
_base_ = './aib_beit-base_upernet_8xb2-160k_ade20k-512x512.py'

model = dict(neck=dict(bottleneck=dict(attention=dict(logit_norm=False))))
optim_wrapper = dict(paramwise_cfg=dict(custom_keys=dict(_delete_=True)))
