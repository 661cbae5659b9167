import torch
import torch.nn.functional as F

from mmaib.functional import adversarial_kl, critic_loss


def test_eq_20_by_hand():
    prior, latent = torch.randn(7, 1), torch.randn(5, 1)
    eq_20 = prior.sigmoid().log().mean() + (1 - latent.sigmoid()).log().mean()
    torch.testing.assert_close(critic_loss(prior, latent), -eq_20)
    torch.testing.assert_close(
        adversarial_kl(latent), (1 - latent.sigmoid()).log().mean()
    )
    torch.testing.assert_close(
        adversarial_kl(latent, saturating=False),
        -latent.sigmoid().log().mean(),
    )
    # and by torch's own cross entropy, where a sigmoid would have saturated
    far = torch.tensor([[200.0]])
    reference = F.binary_cross_entropy_with_logits(far, torch.zeros(1, 1))
    assert critic_loss(far, far) == reference == 200
    assert critic_loss(prior[:0], latent[:0]) == 0


def test_where_the_critic_is_certain_one_form_still_pulls():
    logits = torch.tensor([[-30.0]], requires_grad=True)
    (of_paper,) = torch.autograd.grad(adversarial_kl(logits), logits)
    (usual,) = torch.autograd.grad(adversarial_kl(logits, False), logits)
    assert of_paper.abs() < 1e-12
    assert usual == -1
