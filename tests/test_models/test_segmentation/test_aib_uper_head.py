import pytest
import torch
from support import segmentation as seg
from support.segmentation import make


@pytest.mark.parametrize(
    'kind',
    ['GaussianEncoder', 'AdditiveNoiseEncoder', 'PropagatedNoiseEncoder'],
)
def test_every_encoder_with_an_adversarial_kl(kind):
    segmentor = make(
        decode_head=dict(
            latent=dict(type=f'mmaib.{kind}', critic=dict(), _delete_=True)
        )
    )
    losses = seg.loss(segmentor, seg.inputs())
    assert {'loss_critic', 'loss_kl'} <= losses.keys()
    assert losses['loss_kl'] < 0
    segmentor.parse_losses(losses)[0].backward()
    for name, parameter in segmentor.named_parameters():
        assert parameter.grad is not None, name
        if 'critic' in name or 'propagate' in name:
            assert parameter.grad.any(), name
    assert len(seg.predict(segmentor, seg.inputs())) == 2


def test_a_latent_without_a_kl():
    ours = make(decode_head=dict(latent=dict(beta=0.0)))
    losses = seg.loss(ours, seg.inputs())
    assert losses['loss_kl'] == 0
    assert losses['kl_nats'] > 0


def test_training_alone_is_refused():
    ours = make().train()
    with pytest.raises(RuntimeError, match='AIBUPerHead.*does not collect'):
        ours.decode_head(
            [torch.randn(2, 32, side, side) for side in (16, 8, 4, 2)]
        )
