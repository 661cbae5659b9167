# A rectangle on each level of the pyramid [RECT], all by one module.
_base_ = './faster-rcnn_lite0_fpn_6e_trees-256.py'

model = dict(
    type='mmaib.AIBFasterRCNN',
    neck=dict(
        _delete_=True,
        type='mmaib.AIBNeck',
        neck={{_base_.model.neck}},
        bottleneck=dict(
            attention=dict(type='mmaib.RectangularAttention'),
            modulation=dict(
                mode='scale_residual', rescale=True, init='identity'))))
