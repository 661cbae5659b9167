import pytest
import torch
from support.detection import detector, inputs, noisy_detector, predict

from mmaib.models.detection.aib_roi_head import FeatureDraws


def test_draws_as_a_batch_equal_a_loop_of_single_draws():
    model = noisy_detector(3).eval()
    head = model.roi_head
    rois = torch.tensor(
        [[0, 4.0, 4, 60, 50], [1, 0, 0, 30, 90], [0, 20, 8, 90, 70]]
    )
    images = torch.randn(2, 3, 96, 96)
    with torch.no_grad():
        with model.test_draws.open():
            features = model.extract_feat(images)
        assert isinstance(features, FeatureDraws)
        # outside, each latent is at its mean
        batched = head._bbox_forward(features, rois)
        single = []
        for draw in range(3):
            one = tuple(
                level.unflatten(0, (3, 2))[draw] for level in features.draws
            )
            single.append(head._bbox_forward(one, rois))
    for name in ('cls_score', 'bbox_pred'):
        loop = torch.stack([result[name] for result in single])
        assert torch.allclose(batched[name], loop.mean(0), atol=1e-5)
        assert loop.std(0).max() > 1e-4  # the draws do differ


@pytest.mark.parametrize('draws', ['mean', {'attention': 2, 'latent': 1}])
def test_no_proposals(draws):
    model = detector(**{'test_draws': draws})
    model.rpn_head.test_cfg.min_bbox_size = 1e6
    for sample in predict(model, inputs()):
        assert len(sample.pred_instances) == 0


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
