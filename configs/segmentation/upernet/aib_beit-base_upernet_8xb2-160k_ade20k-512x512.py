# UPerNet BEiT-base with IB attention: Section 4.2.4 and Table 6 of [AIB].
# Schedule, data and every other layer are the baseline's. Ours: logit_norm and
# the std's rate; aib-literal is without them. aib-qt adds the quantiser.
_base_ = './beit-base_upernet_8xb2-160k_ade20k-512x512.py'

model = dict(
    type='mmaib.AIBEncoderDecoder',
    # L_a = 2, L_z = 1 at inference; 'mean' is deterministic and faster
    test_draws=dict(attention=2, latent=1, seed=0),
    neck=dict(
        _delete_=True,
        type='mmaib.AIBNeck',
        neck={{_base_.model.neck}},
        where='before',
        # one map from the four token grids, for all of them
        map='shared',
        in_channels=[768, 768, 768, 768],
        bottleneck=dict(
            attention=dict(std_kernel=1, logit_norm=True),
            quantizer=None,
            modulation=dict(mode='scale_residual', init='paper'))),
    # latent.std_source='mean' is the cheap form: 1.02 times the MACs, not 1.58
    decode_head=dict(
        type='mmaib.AIBUPerHead',
        latent=dict(std_source='feature', beta=0.01)))
# AdamW lets the KL alone set the stds: at the full rate, within 100 steps
optim_wrapper = dict(
    paramwise_cfg=dict(custom_keys={'encoder.std': dict(lr_mult=0.01)}))
