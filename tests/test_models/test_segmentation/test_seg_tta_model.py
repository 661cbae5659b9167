"""Merged predictions of a segmentor against the views by hand."""

from types import SimpleNamespace

import pytest
import torch
from mmengine.structures import PixelData
from mmseg.structures import SegDataSample
from torch import nn

from mmaib.evaluation import CalibrationMetric
from mmaib.registry import MODELS


class Module(nn.Module):
    """What of a segmentor is looked at."""

    def __init__(self, channels, threshold=None):
        super().__init__()
        self.out_channels = channels
        self.decode_head = SimpleNamespace(threshold=threshold)

    def test_step(self, data):
        return data


def view(logits, labels, number, truth):
    sample = SegDataSample(metainfo=dict(img_path='a.png', number=number))
    sample.set_data(
        dict(
            seg_logits=PixelData(data=logits),
            pred_sem_seg=PixelData(data=labels),
            gt_sem_seg=PixelData(data=truth),
            entropy=PixelData(data=torch.rand(1, 6, 9)),
            mutual_information=PixelData(data=torch.rand(1, 6, 9)),
        )
    )
    return sample


def merged(module, views):
    model = MODELS.build(dict(type='mmaib.SegTTAModel', module=module))
    (found,) = model.merge_preds([views])
    return found


def test_probabilities_are_the_mean_of_the_views():
    logits, truth = 3 * torch.randn(3, 4, 6, 9), torch.randint(4, (1, 6, 9))
    found = merged(
        Module(4),
        [
            view(x, x.argmax(0, keepdim=True), i, truth)
            for i, x in enumerate(logits)
        ],
    )
    expected = logits.softmax(1).mean(0)
    torch.testing.assert_close(found.seg_logits.data.softmax(0), expected)
    labels = expected.argmax(0)
    assert torch.equal(found.pred_sem_seg.data[0], labels)
    assert torch.equal(found.gt_sem_seg.data, truth)
    assert found.img_path == 'a.png'
    # of a view, not of all
    assert not {'entropy', 'mutual_information'} & {*found.keys()}
    metric = CalibrationMetric()
    metric.process({}, [found.to_dict()])
    measured = metric.evaluate(1)
    right = float((labels == truth[0]).double().mean())
    assert measured['calibration/accuracy'] == pytest.approx(right)
    nll = -expected.log().gather(0, truth).mean()
    assert measured['calibration/nll'] == pytest.approx(float(nll), rel=1e-4)


def test_one_channel_meets_the_threshold_once():
    """mmseg's class takes the sigmoid of probabilities: all would be 1."""
    probs = torch.tensor([[0.1, 0.5, 0.0], [0.4, 0.5, 0.1]])[:, None, None]
    truth = torch.zeros(1, 1, 3).long()
    views = []
    for i, p in enumerate(probs):
        sample = SegDataSample(metainfo=dict(img_path='a.png', number=i))
        sample.set_data(
            dict(
                seg_logits=PixelData(data=p),
                pred_sem_seg=PixelData(data=(p > 0.3).long()),
                gt_sem_seg=PixelData(data=truth),
            )
        )
        views.append(sample)
    found = merged(Module(1, threshold=0.3), views)
    torch.testing.assert_close(found.seg_logits.data, probs.mean(0))
    assert found.pred_sem_seg.data.flatten().tolist() == [0, 1, 0]
