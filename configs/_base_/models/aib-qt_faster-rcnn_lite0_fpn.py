# The small Faster R-CNN with IB attention and a quantised map.
_base_ = './faster-rcnn_lite0_fpn.py'

model = dict(
    type='mmaib.AIBFasterRCNN',
    test_draws='mean',
    neck=dict(
        _delete_=True,
        type='mmaib.AIBNeck',
        neck={{_base_.model.neck}},
        where='after',
        bottleneck=dict(
            attention=dict(std_source='feature', std_kernel=1),
            quantizer=dict(num_anchors=20, vq_weight=0.4, commit_weight=0.1),
            modulation=dict(mode='scale_residual', init='identity'))),
    roi_head=dict(
        type='mmaib.AIBRoIHead',
        bbox_head=dict(type='mmaib.AIBShared2FCBBoxHead', beta=0.01)))
randomness = dict(seed=None, diff_rank_seed=True)
