_base_ = './vgg16-aib_cub.py'

model = dict(
    neck=dict(
        bottleneck=dict(
            quantizer=dict(
                num_anchors=20, vq_weight=0.4, commit_weight=0.1))))
