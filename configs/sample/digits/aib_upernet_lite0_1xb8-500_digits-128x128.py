# As aib-literal, with logits standardised over positions, so that the map
# cannot saturate.
_base_ = './aib-literal_upernet_lite0_1xb8-500_digits-128x128.py'

model = dict(neck=dict(bottleneck=dict(attention=dict(logit_norm=True))))
