# Global average pooling and one linear layer (Zhou et al., 2016).
_base_ = './vgg16_cub.py'

model = dict(
    head=dict(
        _delete_=True, type='LinearClsHead', num_classes=200, in_channels=512))
