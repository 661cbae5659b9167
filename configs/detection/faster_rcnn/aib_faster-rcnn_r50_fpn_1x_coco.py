# As aib-qt, with a continuous map.
_base_ = './aib-qt_faster-rcnn_r50_fpn_1x_coco.py'

model = dict(neck=dict(bottleneck=dict(quantizer=None)))
