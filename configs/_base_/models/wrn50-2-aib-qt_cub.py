_base_ = './wrn50-2-aib_cub.py'

model = dict(
    neck=dict(
        bottleneck=dict(
            quantizer=dict(
                num_anchors=50, vq_weight=0.4, commit_weight=0.1))))
