_base_ = './faster-rcnn_lite0_fpn_12e_bccd-256.py'

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
