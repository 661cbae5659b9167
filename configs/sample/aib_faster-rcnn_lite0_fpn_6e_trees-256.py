_base_ = './aib-qt_faster-rcnn_lite0_fpn_6e_trees-256.py'

model = dict(neck=dict(bottleneck=dict(quantizer=None)))
