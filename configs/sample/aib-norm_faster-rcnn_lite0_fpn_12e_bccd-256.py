# As aib, with logits standardised over positions: the map cannot saturate.
_base_ = './aib_faster-rcnn_lite0_fpn_12e_bccd-256.py'

model = dict(neck=dict(bottleneck=dict(attention=dict(logit_norm=True))))
