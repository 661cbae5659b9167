_base_ = './upernet_lite0_1xb8-500_digits-128x128.py'

model = dict(
    type='mmaib.AIBEncoderDecoder',
    neck=dict(
        type='mmaib.AIBNeck',
        map='shared',
        in_channels=[24, 40, 112, 320],
        # stride 16, as the token grid of the paper's BEiT
        map_level=2,
        bottleneck=dict(
            quantizer=dict(num_anchors=20),
            modulation=dict(mode='scale_residual', init='identity'))),
    decode_head=dict(
        type='mmaib.AIBUPerHead',
        latent=dict(std_source='feature', beta=0.01)))
# AdamW moves a logit by its step times the number of inputs, some thousands
# here: at the full rate the map saturates and the KL sets the stds at once.
optim_wrapper = dict(
    paramwise_cfg=dict(
        custom_keys={
            'bottleneck.attention': dict(lr_mult=0.01),
            'encoder.std': dict(lr_mult=0.01),
        }))
custom_hooks = [dict(type='mmaib.AttentionVisHook', interval=20)]
