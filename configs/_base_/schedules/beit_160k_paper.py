# BEiT's own schedule, which [AIB] follows (Section 4.2.4): lr 1e-3, layer
# decay 0.65.
_base_ = './beit_160k.py'

optim_wrapper = dict(
    optimizer=dict(lr=1e-3), paramwise_cfg=dict(decay_rate=0.65))
