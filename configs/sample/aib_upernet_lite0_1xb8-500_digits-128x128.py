_base_ = './aib-qt_upernet_lite0_1xb8-500_digits-128x128.py'

model = dict(neck=dict(bottleneck=dict(quantizer=None)))
