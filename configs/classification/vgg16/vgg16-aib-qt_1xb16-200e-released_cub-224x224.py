_base_ = [
    '../../_base_/models/vgg16-aib-qt_cub.py',
    '../../_base_/datasets/cub_boxes_bs16_224_released.py',
    '../../_base_/schedules/adam_200e_cub_released.py',
    '../../_base_/default_runtime_cls.py',
]

# what the authors' code does otherwise: L = 12, the std from the map's mean,
# and pooling to 3x3
model = dict(
    test_draws=dict(attention=12, latent=12),
    neck=dict(
        bottleneck=dict(attention=dict(std_source='mean'))),
    head=dict(pool_size=3))
