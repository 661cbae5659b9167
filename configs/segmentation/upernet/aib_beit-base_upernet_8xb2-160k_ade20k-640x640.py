# As aib-qt, with a continuous map.
_base_ = './aib-qt_beit-base_upernet_8xb2-160k_ade20k-640x640.py'

model = dict(neck=dict(bottleneck=dict(quantizer=None)))
