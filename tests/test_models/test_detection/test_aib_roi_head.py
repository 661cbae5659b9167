import copy

import pytest
import torch
from mmdet.models.layers import multiclass_nms
from support import segmentation as seg
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


@torch.no_grad()
def test_draws_for_the_rois_that_are_kept():
    """They are found as a loop over single draws finds them."""
    model, data = noisy_detector(3).eval(), inputs()
    model.test_draws = dict(attention=3, seed=1, rois='kept')
    head, coder = model.roi_head, model.roi_head.bbox_head.bbox_coder
    packed = model.data_preprocessor(copy.deepcopy(data))
    with model.test_draws.open():
        x = model.extract_feat(packed['inputs'])
    proposals = model.rpn_head.predict(
        tuple(x), packed['data_samples'], rescale=False
    )

    def run(levels, i):
        boxes = proposals[i].bboxes
        rois = torch.cat([torch.full_like(boxes[:, :1], i), boxes], 1)
        return head.bbox_head(head.bbox_roi_extractor(levels[:4], rois))

    def detect(i, kept, logits, deltas):
        """Boxes, labels, and the proposals they are from."""
        boxes = coder.decode(
            proposals[i].bboxes[kept].repeat_interleave(5, 0),
            deltas[kept].reshape(-1, 4),
            max_shape=packed['data_samples'][i].img_shape,
        )
        cfg = head.test_cfg
        return multiclass_nms(
            boxes.view(-1, 20), logits[kept].softmax(1), cfg.score_thr,
            cfg.nms, cfg.max_per_img, return_inds=True,
        )  # fmt: skip

    head.test_cfg.update(score_thr=0.1, max_per_img=20)
    counts = []
    head.bbox_head.register_forward_pre_hook(
        lambda _, args: counts.append(len(args[0]))
    )
    samples = predict(model, data)
    every, drawn = counts
    assert every == sum(map(len, proposals))
    for i, sample in enumerate(samples):
        *_, inds = detect(i, slice(None), *run(tuple(x), i))
        kept = torch.tensor(sorted({*(inds // 5).tolist()}))
        drawn -= 3 * len(kept)
        draws = [
            run([f[2 * k : 2 * k + 2] for f in x.draws], i) for k in range(3)
        ]
        means = (sum(part) / 3 for part in zip(*draws))
        boxes, labels, _ = detect(i, kept, *means)
        scale = torch.tensor([*sample.scale_factor] * 2, dtype=torch.float)
        found = sample.pred_instances
        assert 0 < len(kept) <= 20 < len(proposals[i])
        assert torch.equal(found.labels, labels)
        assert torch.allclose(found.scores, boxes[:, 4], atol=1e-5)
        assert torch.allclose(found.bboxes, boxes[:, :4] / scale, atol=1e-3)
    assert drawn == 0


def test_kept_of_all_is_all_to_the_bit_and_repeats():
    model, data = noisy_detector(2), inputs()
    model.roi_head.test_cfg.update(max_per_img=1000)
    model.roi_head.test_cfg.nms.iou_threshold = 1.0
    asked = dict(attention=2, latent=2, seed=3, uncertainty=True)
    results = []
    for more in (dict(rois='all'), {}, dict(rois='kept'), dict(seed=4)):
        model.test_draws = {**asked, **more}
        samples = predict(model, copy.deepcopy(data))
        results.append([one.pred_instances for one in samples])
    for name in ('bboxes', 'scores', 'labels', 'score_std', 'bbox_std'):
        every, *same, other = (
            torch.cat([one[name] for one in found]) for found in results
        )
        assert all(torch.equal(every, found) for found in same)
        assert name == 'labels' or not torch.equal(every, other)


@pytest.mark.parametrize('uncertainty', [False, True])
def test_no_roi_is_kept(uncertainty):
    model = noisy_detector(2)
    model.test_draws = dict(latent=2, uncertainty=uncertainty, rois='kept')
    model.roi_head.test_cfg.score_thr = 1.0
    for sample in predict(model, inputs()):
        found = sample.pred_instances
        assert found.bboxes.shape == (0, 4)
        assert ('score_std' in found) == uncertainty


def test_rois_of_models_without():
    with pytest.raises(ValueError, match=r'test_draws\.rois.*AIBFasterRCNN'):
        seg.make(test_draws=dict(attention=2, rois='kept'))


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
