# As aib, with a quantised map.
_base_ = './aib_vgg16_1xb128-8e_cifar10-jpeg.py'

model = dict(
    neck=dict(
        bottleneck=dict(
            quantizer=dict(
                num_anchors=20, vq_weight=0.4, commit_weight=0.1))))
