# A variational map of the AIB paper, with the logits that cannot saturate.
_base_ = './pw_vgg_1xb50-12e_cluttered-digits-48x48.py'

model = dict(
    neck=dict(
        bottleneck=dict(
            attention=dict(
                _delete_=True,
                type='mmaib.VariationalAttention',
                std_kernel=3,
                logit_norm=True))))
