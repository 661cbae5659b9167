# As aib-literal, with logits standardised over positions, so that the map
# cannot saturate.
_base_ = './aib-literal_upernet_lite0_1xb4-500_camvid-320x240.py'

model = dict(neck=dict(bottleneck=dict(attention=dict(logit_norm=True))))
