# As aib, with a quantised map.
_base_ = './aib_deeplabv3plus_r50-d8_4xb4-80k_ade20k-512x512.py'

model = dict(neck=dict(bottleneck=dict(quantizer=dict(num_anchors=20))))
