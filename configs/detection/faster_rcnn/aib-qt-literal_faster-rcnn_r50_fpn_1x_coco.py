# As the paper has it, with a map that can saturate.
_base_ = './aib-qt_faster-rcnn_r50_fpn_1x_coco.py'

model = dict(neck=dict(bottleneck=dict(attention=dict(logit_norm=False))))
