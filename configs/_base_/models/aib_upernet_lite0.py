# The small UPerNet with IB attention; aib-qt adds the quantiser.
_base_ = './upernet_lite0.py'

model = dict(
    type='mmaib.AIBEncoderDecoder',
    neck=dict(
        type='mmaib.AIBNeck',
        map='shared',
        in_channels=[24, 40, 112, 320],
        # stride 16, as the token grid of the paper's BEiT
        map_level=2,
        bottleneck=dict(
            quantizer=None,
            modulation=dict(mode='scale_residual', init='identity'))),
    decode_head=dict(
        type='mmaib.AIBUPerHead',
        latent=dict(std_source='feature', beta=0.01)))
