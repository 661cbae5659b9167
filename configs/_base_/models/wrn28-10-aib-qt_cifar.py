_base_ = './wrn28-10-aib_cifar.py'

model = dict(
    neck=dict(
        bottleneck=dict(
            quantizer=dict(
                num_anchors=50, vq_weight=0.4, commit_weight=0.1))))
