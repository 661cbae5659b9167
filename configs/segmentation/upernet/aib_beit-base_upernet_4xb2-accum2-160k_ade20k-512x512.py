# As aib-qt, with a continuous map.
_base_ = './aib-qt_beit-base_upernet_4xb2-accum2-160k_ade20k-512x512.py'

model = dict(neck=dict(bottleneck=dict(quantizer=None)))
