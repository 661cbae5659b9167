# mmseg's default_runtime.py, and every rank draws its own noise. That stands
# here, not with the method: it changes the order of the data too, and a
# baseline must see the same.
default_scope = 'mmseg'
env_cfg = dict(
    cudnn_benchmark=True,
    mp_cfg=dict(mp_start_method='fork', opencv_num_threads=0),
    dist_cfg=dict(backend='nccl'),
)
vis_backends = [dict(type='LocalVisBackend')]
visualizer = dict(
    type='SegLocalVisualizer', vis_backends=vis_backends, name='visualizer')
log_processor = dict(by_epoch=False)
log_level = 'INFO'
load_from = None
resume = False

tta_model = dict(type='mmaib.SegTTAModel')
randomness = dict(seed=None, diff_rank_seed=True)
