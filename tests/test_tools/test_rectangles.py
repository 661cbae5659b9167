import csv
import math
from types import SimpleNamespace

import pytest
import torch
from mmengine.config import Config
from PIL import Image
from support import CONFIGS, REPOSITORY
from support import classification as cls

from mmaib.evaluation.map_geometry import rectangles_on_image
from mmaib.functional import rectangle_window
from mmaib.layers import CapturedMap
from mmaib.visualization.work_dirs import read_records

TOOL = REPOSITORY / 'tools' / 'experiments' / 'rectangles.py'
STUDY = TOOL.with_name('study.py')
FOLDER = CONFIGS / 'sample' / 'cluttered-digits'
NAME = 'vgg_1xb50-12e_cluttered-digits-48x48.py'
CONFIG = FOLDER / f'rect_{NAME}'
ARMS = (
    'pw', 'var', 'gate', 'rect', 'rect-equi', 'pw-gate', 'rect-moments',
    'rect-moments-gate',
)  # fmt: skip
SHORT = (
    'train_cfg.max_epochs=1',
    'train_cfg.val_interval=1',
    'train_dataloader.dataset.num_images=100',
    'val_dataloader.dataset.num_images=50',
)


@pytest.fixture
def rectangles(studies):
    import rectangles

    return rectangles


def measured(rectangles, params, size, image):
    """And the corners, in pixels of the image."""
    captured = CapturedMap(torch.zeros(1, 1, *size), rectangles=params[None])
    metainfo = dict(img_shape=image, ori_shape=image)
    (corners,) = rectangles_on_image([captured], 0, metainfo)
    height, width = image
    values = rectangles.measured(
        (corners / torch.tensor([width, height])).numpy()
    )
    return rectangles.Rectangle(0, 0, *values), corners.tolist()


@pytest.mark.parametrize('extents', [(0.3, 0.15), (0.15, 0.3)])
def test_the_outline_is_that_of_the_window(rectangles, extents):
    """Its middle of each side is where the window has half of its height."""
    params = torch.tensor([0.45, 0.55, *extents, 0.6])
    side = 201
    size = (side, side)
    found, corners = measured(rectangles, params, size, size)
    assert found.half_long > found.half_short
    assert 0 <= found.angle < 180
    window = rectangle_window(params, size)
    for (x1, y1), (x2, y2) in zip(corners, corners[1:] + corners[:1]):
        x, y = (x1 + x2) / 2 - 0.5, (y1 + y2) / 2 - 0.5
        assert window[round(y), round(x)] == pytest.approx(0.5, abs=0.1)
    assert found.half_long * side == pytest.approx(0.3 * 200, rel=1e-3)


@pytest.mark.parametrize('size', [(5, 10), (2, 7), (9, 4)])
@pytest.mark.parametrize('angle', [0.0, 0.7, math.pi / 2])
def test_a_map_that_is_not_square(rectangles, size, angle):
    params = torch.tensor([0.45, 0.55, 0.3, 0.15, angle])
    found, corners = measured(rectangles, params, size, (300, 200))
    x, y = (torch.tensor(corners) / torch.tensor([200, 300])).unbind(1)
    shoelace = (x * y.roll(-1) - y * x.roll(-1)).sum().abs() / 2
    assert found.area == pytest.approx(float(shoelace), rel=1e-4)
    assert found.row == pytest.approx(float(y.mean()), rel=1e-4)


def test_windows_that_slide_are_refused(rectangles):
    model = SimpleNamespace(test_cfg=dict(mode='slide'))
    with pytest.raises(ValueError, match='test_cfg.mode=whole'):
        rectangles.find(model, [])


def test_the_table_and_the_sheet(run, tmp_path):
    model = cls.build(Config.fromfile(CONFIG))
    layer = model.neck.bottleneck.attention.mean
    torch.nn.init.normal_(layer.weight, std=5.0)
    checkpoint = tmp_path / 'model.pth'
    torch.save(dict(state_dict=model.state_dict(), meta={}), checkpoint)
    run(
        TOOL, CONFIG, checkpoint, '--out', tmp_path / 'out',
        '--cfg-options', 'test_dataloader.dataset.num_images=7',
    )  # fmt: skip
    with open(tmp_path / 'out' / 'rectangles.csv') as file:
        rows = list(csv.DictReader(file))
    assert [int(row['image']) for row in rows] == list(range(7))
    assert len({row['row'] for row in rows}) == 7
    for row in rows:
        assert 0 < float(row['row']) < 1
        assert float(row['half_long']) >= float(row['half_short']) > 0
    page = Image.open(tmp_path / 'out' / 'sheet.png')
    assert page.size == (7 * 225, 9 * 240)  # corners and the rest


@pytest.mark.parametrize(
    ('name', 'options', 'message'),
    [
        ('vgg', [], 'the model has neither maps nor uncertainty'),
    ],
)
def test_what_pictures_cannot_show_is_told(
    run, tmp_path, name, options, message
):
    config = CONFIG.with_name(f'{name}_1xb50-12e_cluttered-digits-48x48.py')
    model = cls.build(Config.fromfile(config))
    torch.save(dict(state_dict=model.state_dict()), tmp_path / 'model.pth')
    out = run(
        'mmaib', 'visualize', config, tmp_path / 'model.pth',
        '--out', tmp_path / 'out', *options, check=False,
    )  # fmt: skip
    assert message in out
    assert 'Traceback' not in out


def test_arms_differ_in_the_model_alone():
    plain = Config.fromfile(FOLDER / NAME).to_dict()
    paths = FOLDER.glob(f'*_{NAME}')
    assert {p.name.removesuffix(f'_{NAME}') for p in paths} == {*ARMS}
    models = []
    for arm in ARMS:
        cfg = Config.fromfile(FOLDER / f'{arm}_{NAME}')
        for field, value in plain.items():
            if field != 'model':
                assert cfg[field] == value, (arm, field)
        for part in ('backbone', 'head'):
            assert cfg.model[part] == plain['model'][part]
        assert cfg.model.neck.neck == plain['model']['neck']
        models.append(repr(cfg.model))
    assert len({*models}) == len(ARMS)


def test_one_command_writes_the_table(run, tmp_path):
    configs = [FOLDER / NAME, FOLDER / f'rect-equi_{NAME}']
    records = tmp_path / 'records.jsonl'
    out = run(
        STUDY, *configs, '--seeds', 1, '--jobs', 1, '--interval',
        '--out', tmp_path / 'out', '--records', records,
        '--cfg-options', *SHORT,
    )  # fmt: skip
    assert '95 % interval' in out
    head = next(line for line in out.splitlines() if '| config' in line)
    for column in ('accuracy/top1', 'lost by mirror', 'IoU'):
        assert column in head
    named = {r['name']: r['metrics'] for r in read_records(records)}
    metrics = named[configs[1].stem]
    assert 0 < metrics['attention/iou'] < 1
    assert 'ablation/mirror/accuracy/top1' in metrics
