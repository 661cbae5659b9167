_base_ = './aib-qt_upernet_lite0_1xb4-500_camvid-320x240.py'

model = dict(neck=dict(bottleneck=dict(quantizer=None)))
