# As aib, with a quantised map.
_base_ = './aib_upernet_lite0_1xb8-500_digits-128x128.py'

model = dict(
    neck=dict(
        bottleneck=dict(
            quantizer=dict(_delete_=True, num_anchors=20))))
