# As aib-literal, with logits standardised over positions, so that the map
# cannot saturate.
_base_ = './aib-literal_faster-rcnn_lite0_fpn_6e_trees-256.py'

model = dict(neck=dict(bottleneck=dict(attention=dict(logit_norm=True))))
