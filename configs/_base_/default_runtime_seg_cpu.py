_base_ = './default_runtime_seg.py'

env_cfg = dict(dist_cfg=dict(backend='gloo'))
