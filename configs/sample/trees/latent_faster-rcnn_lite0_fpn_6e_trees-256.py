# The latent of aib-literal's box head, without a map.
_base_ = './faster-rcnn_lite0_fpn_6e_trees-256.py'

model = dict(
    type='mmaib.AIBFasterRCNN',
    roi_head=dict(
        type='mmaib.AIBRoIHead',
        bbox_head=dict(
            type='mmaib.AIBShared2FCBBoxHead', latent=dict(beta=0.01))))
