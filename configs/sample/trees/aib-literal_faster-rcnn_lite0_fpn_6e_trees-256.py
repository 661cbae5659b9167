_base_ = './faster-rcnn_lite0_fpn_6e_trees-256.py'

model = dict(
    type='mmaib.AIBFasterRCNN',
    neck=dict(
        _delete_=True,
        type='mmaib.AIBNeck',
        neck={{_base_.model.neck}},
        bottleneck=dict(
            quantizer=None,
            modulation=dict(mode='scale_residual', init='identity'))),
    roi_head=dict(
        type='mmaib.AIBRoIHead',
        bbox_head=dict(
            type='mmaib.AIBShared2FCBBoxHead', latent=dict(beta=0.01))))

custom_hooks = [dict(type='mmaib.AttentionVisHook', interval=8)]
# AdamW's step does not shrink with the gradient: at the full rate the map
# saturates within an epoch.
optim_wrapper = dict(
    paramwise_cfg=dict(
        custom_keys={'bottleneck.attention': dict(lr_mult=0.1)}))
