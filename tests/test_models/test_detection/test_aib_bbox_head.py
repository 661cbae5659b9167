import torch
from support.detection import detector


def test_a_checkpoint_of_ours_keeps_its_own_twin():
    trained = detector()
    torch.nn.init.normal_(trained.roi_head.bbox_head.reg_encoder.mean.weight)
    other = detector()
    other.load_state_dict(trained.state_dict(), strict=True)
    assert torch.equal(
        other.roi_head.bbox_head.reg_encoder.mean.weight,
        trained.roi_head.bbox_head.reg_encoder.mean.weight,
    )


def test_losses_of_drawn_latents_are_the_mean_over_the_draws():
    """Eq. 18."""
    head = detector().roi_head.bbox_head
    draws, rois = 3, 7
    scores = torch.randn(draws, rois, head.num_classes + 1)
    deltas = torch.randn(draws, rois, 4 * head.num_classes)
    targets = (
        torch.rand(rois, 5),
        torch.randint(0, head.num_classes + 1, (rois,)),
        torch.ones(rois),
        torch.randn(rois, 4),
        torch.ones(rois, 4),
    )
    folded = head.loss(scores.flatten(0, 1), deltas.flatten(0, 1), *targets)
    single = [head.loss(s, d, *targets) for s, d in zip(scores, deltas)]
    for name, value in folded.items():
        mean = torch.stack([losses[name] for losses in single]).mean(0)
        torch.testing.assert_close(value, mean)
