"""The matrix of base models: each of them, shrunk, with an
information gate that `mmaib wrap` wrote into it. `python tests/any_model.py`
writes the page from the same rows."""

import copy
import re
from dataclasses import replace

import pytest
import torch
from support import REPOSITORY, base_models, matrix

from mmaib.models.averaging import averaged
from mmaib.sampling.draws import mean_over_draws

PAGE = (REPOSITORY / 'docs' / 'any_model.md').read_text()


def cells(name):
    """A base model's row of the page, without its name."""
    (line,) = re.findall(rf'^\| {re.escape(name)} \| (.*) \|$', PAGE, re.M)
    return line.split(' | ')


@pytest.mark.parametrize('name', base_models.installed())
def test_a_base_model_does_what_the_page_says(name, tmp_path):
    row = matrix.row(name, tmp_path)
    *line, _ = cells(name)
    assert line == [*row.values()]
    for column in ('loss', 'predict', 'keys', 'base model to the bit'):
        assert row[column] == matrix.YES


@pytest.mark.slow
def test_two_ranks_do_what_the_page_says(tmp_path):
    names = base_models.installed()
    found = matrix.ddp(names, tmp_path)
    assert found == {name: cells(name)[-1] for name in names}
    assert {*found.values()} == {matrix.YES, matrix.AS_THE_BASE}


def test_the_page_has_no_other_rows():
    tables = PAGE.partition('<!-- tables')[2]
    rows = re.findall(
        r'^\| (?!base model)([^|]*[^|\s-]) \|', tables, re.MULTILINE
    )
    assert rows == [*base_models.BASE_MODELS]


@pytest.fixture
def drawing(tmp_path):
    """A model of a base model whose drawn maps differ enough to be seen."""

    def build(name, **test_draws):
        cfg = base_models.config(name)
        (tmp_path / 'original.py').write_text(cfg.pretty_text)
        model = matrix.trained(matrix.wrapped(tmp_path, 'gate'))
        std = model.neck.bottleneck.attention.std_conv
        torch.nn.init.constant_(std.bias, 4.0)
        model.test_draws = test_draws
        return model.eval(), base_models.inputs(cfg)

    return build


@torch.no_grad()
@pytest.mark.parametrize('name', ['RetinaNet', 'FCOS', 'YOLOX'])
def test_draws_of_a_one_stage_detector_are_means_of_single_ones(name, drawing):
    model, data = drawing(name, attention=3, seed=5)
    got = matrix.answers(model, data)

    images = model.data_preprocessor(copy.deepcopy(data))
    with model.test_draws.open():
        features = model.extract_feat(images['inputs'])
    assert [len(x) for x in features] == [6] * len(features)
    outs = [
        model.bbox_head([x[2 * draw : 2 * draw + 2] for x in features])
        for draw in range(3)
    ]
    mean = [
        [torch.stack(level).mean(0) for level in zip(*part)]
        for part in zip(*outs)
    ]
    metas = [sample.metainfo for sample in images['data_samples']]
    expected = model.bbox_head.predict_by_feat(
        *mean, batch_img_metas=metas, rescale=True
    )
    boxes = [
        value
        for one in expected
        for value in (one.bboxes, one.labels, one.scores)
    ]
    assert all(torch.allclose(a, b, atol=1e-3) for a, b in zip(got, boxes))
    assert len(got) == len(boxes)


@torch.no_grad()
def test_draws_of_a_cascade_of_segmentors_are_means_of_single_ones(drawing):
    model, data = drawing('OCRNet', attention=3, seed=5)
    images = model.data_preprocessor(copy.deepcopy(data))
    metas = [sample.metainfo for sample in images['data_samples']]
    got = model.encode_decode(images['inputs'], metas)
    with model.test_draws.open():
        features = model.extract_feat(images['inputs'])
    first, last = model.decode_head
    single = []
    for draw in range(3):
        rows = slice(2 * draw, 2 * draw + 2)
        levels = [x[rows] for x in features]
        out = last.forward(levels, first.forward(levels))
        single.append(last.predict_by_feat(out, metas))
    assert torch.allclose(got, sum(single) / 3, atol=1e-5)
    assert not torch.allclose(got, single[0], atol=1e-3)


@torch.no_grad()
def test_draws_of_a_cascade_of_boxes_are_means_in_each_stage(drawing):
    model, data = drawing('Cascade R-CNN', attention=3, seed=5)
    images = model.data_preprocessor(copy.deepcopy(data))['inputs']
    with model.test_draws.open():
        x = model.extract_feat(images)
    rois = torch.rand(7, 5) * 30
    rois[:, 3:] += 32
    rois[:, 0] = torch.tensor([0, 0, 0, 0, 1, 1, 1])
    head = model.roi_head
    for stage in range(3):
        got = head._bbox_forward(stage, x, rois)
        single = []
        for draw in range(3):
            levels = [f[2 * draw : 2 * draw + 2] for f in x.draws]
            pooled = head.bbox_roi_extractor[stage](levels[:4], rois)
            single.append(head.bbox_head[stage](pooled))
        for name, parts in zip(('cls_score', 'bbox_pred'), zip(*single)):
            mean = mean_over_draws(torch.cat(parts), 7)
            assert torch.allclose(got[name], mean, atol=1e-5)
    assert not torch.equal(x.draws[0][:2], x.draws[0][2:4])


@torch.no_grad()
def test_a_cascade_draws_for_the_proposals_that_are_kept(drawing):
    model, data = drawing('Cascade R-CNN', attention=3, seed=5, rois='kept')
    head, packed = model.roi_head, model.data_preprocessor(data)
    metas = [sample.metainfo for sample in packed['data_samples']]
    with model.test_draws.open():
        x = model.extract_feat(packed['inputs'])
    proposals = model.rpn_head.predict(tuple(x), packed['data_samples'])
    mean = head.predict_bbox(tuple(x), metas, proposals, None)
    best = [one.scores[:, :-1].amax(1) for one in mean]
    head.test_cfg.score_thr = torch.cat(best).median().item()
    head.test_cfg.nms.iou_threshold = 1.0  # leaves all above the threshold
    head.test_cfg.max_per_img = 1000
    few = [p[s > head.test_cfg.score_thr] for p, s in zip(proposals, best)]
    assert 0 < sum(map(len, few)) < sum(map(len, proposals))
    counts, got = [], {}
    head.bbox_head[0].register_forward_pre_hook(
        lambda _, args: counts.append(len(args[0]))
    )
    for rois, given in (('kept', proposals), ('all', few)):
        draws = replace(model.test_draws, rois=rois)
        with draws.open():
            got[rois] = head.predict_bbox(x, metas, given, head.test_cfg)
    count = sum(map(len, few))
    assert counts == [sum(map(len, proposals)), 3 * count, 3 * count]
    for one, other in zip(got['kept'], got['all']):
        assert torch.equal(one.bboxes, other.bboxes)
        assert torch.equal(one.scores, other.scores)


@pytest.mark.parametrize(
    ('name', 'draws', 'reason'),
    [
        ('DINO', dict(attention=2), 'set predictors cannot'),
        ('Sparse R-CNN', dict(attention=2), 'set predictors cannot'),
        ('SOLOv2', dict(attention=2), 'no one output before'),
        ('RetinaNet', dict(latent=2), 'average latents: leave latent out'),
        ('RetinaNet', dict(attention=2, rois='all'), 'test_draws.rois='),
    ],
)
def test_what_cannot_be_averaged_is_refused_by_name(
    name, draws, reason, drawing
):
    with pytest.raises(ValueError, match=reason):
        drawing(name, **draws)


def test_only_rows_of_draws_are_averaged():
    """A head's other outputs, such as strides, are left as they are."""

    class Head(torch.nn.Module):
        def forward(self, levels):
            strides = torch.arange(8.0)
            return [x.mean((2, 3)) for x in levels], (strides, strides[0], 5)

    head, x = Head(), torch.rand(6, 4, 3, 3)
    with averaged(head, 2):
        (means,), (strides, scalar, number) = head([x])
    expected = (x[:2] + x[2:4] + x[4:]).mean((2, 3)) / 3
    torch.testing.assert_close(means, expected)
    assert torch.equal(strides, torch.arange(8.0))
    assert scalar == 0
    assert number == 5
    assert len(head([x])[0][0]) == 6  # and no more outside
