"""A trained model explained by one command, of base libraries that nothing was
trained of."""

import json
import re
from types import SimpleNamespace

import pytest
import torch
from support import CONFIGS, base_models, matrix
from test_interpretability_tool import PLAIN, work_dir

from mmaib.cli.main import main
from mmaib.explanations import grad_cam_in_gate as grad_cam
from mmaib.layers import (
    AttentiveBottleneck,
    MapDistribution,
    capture_attention,
)
from mmaib.layers.image_cells import image_cells
from mmaib.models.base_checkpoint import BaseCheckpoint
from mmaib.preflight.checkpoint import read_checkpoint

FEW = 'val_dataloader.dataset.indices=3'


def rows(text):
    lines = [line for line in text.splitlines() if line.startswith('|')]
    table = [[c.strip() for c in line.strip('|').split('|')] for line in lines]
    return {row[0]: dict(zip(table[0], row)) for row in table[2:]}


def test_grad_cam_takes_the_scores_of_an_images_own_cells():
    """Of an image that is half padding, where the gate's scores are high and
    Grad-CAM is higher still."""
    mean, cam = torch.rand(2, 1, 4, 8), torch.rand(2, 1, 4, 8)
    mean[1, ..., 4:] += 1
    cam[1, ..., 4:] += 5
    gate = SimpleNamespace(
        map_channels=3, modulation=SimpleNamespace(out_channels=3)
    )
    readout = SimpleNamespace(
        bottleneck=gate, _cams=[cam], _maps={}, _batch=0, _call=0
    )
    samples = [
        SimpleNamespace(metainfo=dict(img_shape=(16, width)))
        for width in (32, 16)
    ]
    with image_cells(torch.zeros(2, 3, 16, 32), samples, training=False):
        found = grad_cam.GradCAMInGate._replace(
            readout, None, (), MapDistribution(mean)
        ).mean
    for index, width in enumerate((8, 4)):
        own, places = (x[index, ..., :width].flatten() for x in (mean, cam))
        expected = own.sort().values[places.argsort().argsort()]
        assert torch.equal(found[index, ..., :width].flatten(), expected)
    assert torch.equal(found[1, ..., 4:], mean[1, ..., 4:])


def test_a_segmentor_is_explained_and_a_second_time_nothing_is_trained(
    run, data, tmp_path
):
    # a name that MMEngine makes a list of, and files of the base model's
    folder = work_dir(tmp_path / 'a, base model', PLAIN)
    checkpoint = folder / 'iter_1.pth'
    results = tmp_path / 'results'
    results.mkdir()
    for image in (data / 'digits' / 'img_dir' / 'val').iterdir():
        (results / f'{image.stem}.png').write_text('of the base model')
    out = tmp_path / 'out'

    def read_out(*more, check=True):
        return run(
            'mmaib', 'readout', PLAIN, checkpoint, '--out', out,
            '--iterations', 3,
            '--pictures', 1, *more,
            '--cfg-options', FEW, 'train_dataloader.batch_size=2',
            f'val_evaluator.output_dir={results}',
            check=check,
        )  # fmt: skip

    said = read_out('--no-grad-cam')
    assert 'start' in said
    text = (out / 'readout.md').read_text()
    (log,) = out.glob('*/vis_data/scalars.json')
    found = {}
    for line in log.read_text().splitlines():
        found.update(json.loads(line))
    table = rows(text)
    base_model, readout = (
        table['none: the base model, gate open'],
        table['the readout'],
    )
    assert base_model['mIoU'] == f'{found["ablation/open/mIoU"]:.4f}'
    assert base_model['share open'] == '1.000'
    assert readout['mIoU'] == f'{found["mIoU"]:.4f}'
    lost = found['mIoU'] - found['ablation/mirror/mIoU']
    assert readout['lost by mirror'] == f'{lost:.4f}'
    assert readout['share open'] == f'{found["gate_open"]:.3f}'
    assert (
        readout['bits an image'] == f'{found["attention/bits_per_image"]:.0f}'
    )
    assert table['Grad-CAM']['mIoU'] == 'not run'
    assert 'Grad-CAM: not run, --no-grad-cam.' in text
    page = (out / 'report.html').read_text()
    assert page.count('<figure ') == 1
    # what was learned alone, and which base model it was learned over
    trained = read_checkpoint(str(out / 'iter_3.pth'))['state_dict']
    base = BaseCheckpoint.from_tensor(trained.pop('base_checkpoint'))
    assert base == BaseCheckpoint.of(checkpoint)
    assert {key.partition('bottleneck')[0] for key in trained} == {'neck.'}
    again = read_out()
    assert 'start' not in again
    assert 'visualize' not in again
    cam = rows((out / 'readout.md').read_text())['Grad-CAM']
    assert cam['share open'] == readout['share open']
    refused = read_out('--iterations', 4, check=False)
    assert refused.returncode
    assert 'with another --iterations' in refused
    files = [*results.iterdir()]
    assert len(files) == 80
    assert {path.read_text() for path in files} == {'of the base model'}


@pytest.mark.parametrize(
    ('config', 'checkpoint', 'options', 'message'),
    [
        (PLAIN, 'nowhere.pth', [], 'checkpoint: no file nowhere.pth'),
        (PLAIN, 'text.pth', [], "checkpoint: 'text.pth' is not a whole"),
        (
            CONFIGS / 'sample' / 'digits' / f'gate_{PLAIN.name}',
            'whole.pth',
            [],
            'already contains mmaib',
        ),
        (
            PLAIN,
            'whole.pth',
            ['train_dataloader=None'],
            'train_dataloader is None in .*the map learns from',
        ),
        (
            PLAIN,
            'whole.pth',
            ['test_dataloader=None'],
            'test_dataloader is None in .*pictures are of its images',
        ),
        (
            PLAIN,
            'whole.pth',
            ['train_dataloader.dataset.data_root=elsewhere'],
            'train_dataloader.dataset.data_root',
        ),
    ],
)
def test_mistakes_are_named_before_anything_is_trained(
    monkeypatch, capsys, tmp_path, data, config, checkpoint, options, message
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv('MMAIB_DATA', str(data))
    (tmp_path / 'text.pth').write_text('no checkpoint')
    torch.save(dict(state_dict={}), tmp_path / 'whole.pth')
    argv = ['readout', str(config), checkpoint, '--out', 'out']
    if options:
        argv += ['--cfg-options', *options]
    assert main(argv) == 2
    assert re.search(message, capsys.readouterr().err)
    assert not list(tmp_path.rglob('out/*.py'))
    assert not (tmp_path / 'out' / 'stdout.log').exists()


def test_a_folder_with_somebodys_checkpoint_is_left_alone(
    monkeypatch, tmp_path, data, capsys
):
    """As the base model's own, which would be resumed."""
    monkeypatch.setenv('MMAIB_DATA', str(data))
    path = tmp_path / 'iter_1.pth'
    torch.save(dict(state_dict={}), path)
    argv = ['readout', str(PLAIN), str(path), '--out', str(tmp_path)]
    assert main(argv) == 2
    said = capsys.readouterr().err
    assert re.search('--out .*iter_1.pth in it is of a', said)
    assert [*tmp_path.iterdir()] == [path]


def readout(tmp_path, name):
    cfg = base_models.config(name)
    (tmp_path / 'original.py').write_text(cfg.pretty_text)
    model = matrix.wrapped(tmp_path, 'readout').eval()
    for bottleneck in model.modules():
        if isinstance(bottleneck, AttentiveBottleneck):
            conv = bottleneck.attention.mean_conv
            torch.nn.init.normal_(conv.weight, std=0.3)
            return cfg, matrix.trained(model), bottleneck


def by_hand(model, data, modulated, level):
    """Grad-CAM of one level, the gate open: of each channel the mean of the
    gradient of what is explained, by a hook on the gate."""
    given = model.data_preprocessor(data, False)
    seen = []

    def take(gate, args, _):
        seen.append(args[0].detach().requires_grad_())
        return seen[-1]

    with torch.enable_grad():
        handle = modulated.register_forward_hook(take)
        samples = model(**given, mode='predict')
        handle.remove()
        sum(grad_cam.confidence(s) for s in samples).backward()
    gradient = seen[level].grad
    if gradient is None:
        return torch.zeros_like(seen[level][:, :1])
    maps = []
    for x, g in zip(seen[level].detach(), gradient):
        cam = sum(g[c].mean() * x[c] for c in range(len(x))).clamp(min=0)
        cam = cam - cam.min()
        maps.append(cam / (1e-7 + cam.max()))
    return torch.stack(maps)[:, None]


@pytest.mark.parametrize('name', ['Faster R-CNN', 'UPerNet BEiT', 'ResNet'])
def test_grad_cam_is_that_of_autograd_and_opens_the_gate(name, tmp_path):
    cfg, model, bottleneck = readout(tmp_path, name)
    data = base_models.inputs(cfg)
    gate = bottleneck.modulation
    with capture_attention(model) as own:
        model.test_step(data)
    levels = range(len(gate.statistics))
    expected_of = [by_hand(model, data, gate, level) for level in levels]
    applied = grad_cam.GradCAMInGate(model, 1)
    with capture_attention(model) as maps:
        applied.test_step(data)
    cams = grad_cam.grad_cams(model, bottleneck, data)
    for cam, expected in zip(cams, expected_of):
        torch.testing.assert_close(cam, expected, atol=1e-4, rtol=1e-4)
    # what the gate took has the scores of its own map in other places, and
    # no pass but the answer's was watched
    assert len(maps) == len(own)
    for mine, theirs in zip(maps, own):
        torch.testing.assert_close(
            mine.mean.mean((1, 2, 3)), theirs.mean.mean((1, 2, 3))
        )
    assert any(not torch.equal(a.mean, b.mean) for a, b in zip(maps, own))


def test_a_base_model_that_cuts_the_gradient_off_is_named(tmp_path):
    cfg, model, _ = readout(tmp_path, 'RetinaNet')
    applied = grad_cam.GradCAMInGate(model, 1)
    with pytest.raises(grad_cam.NoGradientError, match='cuts its predictions'):
        applied.test_step(base_models.inputs(cfg))
