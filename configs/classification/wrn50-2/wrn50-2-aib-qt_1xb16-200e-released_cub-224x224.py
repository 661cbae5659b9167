_base_ = [
    '../../_base_/models/wrn50-2-aib-qt_cub.py',
    '../../_base_/datasets/cub_boxes_bs16_224_released.py',
    '../../_base_/schedules/adam_200e_cub_released.py',
    '../../_base_/default_runtime_cls.py',
]

# what the authors' code does otherwise: L = 12, the std from the map's mean,
# and random weights of the mean's block; Q = 20
model = dict(
    test_draws=dict(attention=12, latent=12),
    neck=dict(
        bottleneck=dict(
            quantizer=dict(num_anchors=20),
            attention=dict(
                std_source='mean', mean_trunk=dict(init_cfg=None)))))
