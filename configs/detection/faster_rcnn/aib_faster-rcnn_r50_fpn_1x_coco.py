# Faster R-CNN R50-FPN with IB attention: Section 4.2.5 and Table 7 of [AIB].
# All else is mmdet's. Ours: logit_norm, against saturation (see aib-literal).
_base_ = 'mmdet::faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py'
custom_imports = dict(imports=['mmaib'])

model = dict(
    type='mmaib.AIBFasterRCNN',
    # L_a = 4, L_z = 1 at inference; 'mean' is deterministic and faster
    test_draws=dict(attention=4, latent=1, seed=0),
    neck=dict(
        _delete_=True,
        type='mmaib.AIBNeck',
        neck={{_base_.model.neck}},
        where='after',
        bottleneck=dict(
            attention=dict(
                std_source='feature', std_kernel=1, logit_norm=True),
            quantizer=None,
            modulation=dict(mode='scale_residual', init='paper'))),
    roi_head=dict(
        type='mmaib.AIBRoIHead',
        bbox_head=dict(
            type='mmaib.AIBShared2FCBBoxHead', latent=dict(beta=0.01))))

# every rank draws its own noise; the hooks: docs/reliability.md
randomness = dict(seed=None, diff_rank_seed=True)
default_hooks = dict(
    checkpoint=dict(type='mmaib.SafeCheckpointHook'),
    finite=dict(type='mmaib.FiniteCheckHook'),
    step_seed=dict(type='mmaib.StepSeedHook'))
