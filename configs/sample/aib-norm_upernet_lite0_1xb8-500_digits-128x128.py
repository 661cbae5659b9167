# As aib, with logits standardised over positions: the map cannot saturate.
_base_ = './aib_upernet_lite0_1xb8-500_digits-128x128.py'

model = dict(neck=dict(bottleneck=dict(attention=dict(logit_norm=True))))
