# The decoder's latent of aib-literal, without a map.
_base_ = './aib-literal_upernet_lite0_1xb4-500_camvid-320x240.py'

model = dict(neck=None)
