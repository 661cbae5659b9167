"""What README and docs say: their lines run, their links lead somewhere, and
the tables of fields have the layers' fields."""

import inspect
import re

import pytest
import torch
from mmengine.config import Config
from mmengine.hub import get_config
from support import REPOSITORY
from support import classification as cls
from support import detection as det
from support import segmentation as seg
from torch import nn

from mmaib import datasets, hooks, layers, models
from mmaib.compat import register_config_sources
from mmaib.evaluation import (
    AttentionMetric,
    CalibrationMetric,
    DetectionCalibrationMetric,
)
from mmaib.layers.feature_modulation import MODES
from mmaib.layers.map_changes import CHANGES, OPEN
from mmaib.models.freezing import FROZEN
from mmaib.sampling.draws import AVERAGES, current

FIELDS_PAGE = REPOSITORY / 'docs' / 'fields.md'
CLASSIFICATION = REPOSITORY / 'configs' / 'classification' / 'README.md'
PAGES = sorted(
    page
    for folder in ('.', 'docs', 'configs')
    for page in (REPOSITORY / folder).glob(
        '*.md' if folder != 'configs' else '**/README.md'
    )
)


RESULTS = sorted((REPOSITORY / 'docs' / 'results').glob('*.md'))


def blocks(page):
    return re.findall(r'```python\n(.*?)```', page.read_text(), re.DOTALL)


def block(page, word):
    """The one block of Python with that word in it."""
    (lines,) = (lines for lines in blocks(page) if word in lines)
    return lines


def expanded(path):
    """As a shell does it, of ``{a,b}``."""
    if not (found := re.search(r'\{([^{}]*)\}', path)):
        return [path]
    before, after = path[: found.start()], path[found.end() :]
    return [
        whole
        for part in found[1].split(',')
        for whole in expanded(f'{before}{part}{after}')
    ]


def test_files_that_pages_name_are_there():
    texts = [
        page.read_text()
        for page in (*PAGES, *RESULTS)
        if page.name != 'CHANGELOG.md'  # which names what is gone
    ]
    named = re.compile(
        r'(?<![\w/.:])((?:configs|tools|tests|requirements)/'
        r'[\w./{},*-]*[\w}*]|test_\w+/[\w/]*test_\w+(?:\.py)?)'
    )
    paths = {
        path
        for text in texts
        for name in named.findall(text)
        for path in expanded(name)
    }
    assert len(paths) > 90
    roots = (REPOSITORY, REPOSITORY / 'tests')
    missing = [p for p in paths if not any([*r.glob(p)] for r in roots)]
    assert not missing


def pasted(tmp_path, base, lines):
    """A config of the base model's with the lines pasted behind it."""
    path = tmp_path / 'pasted.py'
    path.write_text(
        f"_base_ = '{base}'\ncustom_imports = dict(imports=['mmaib'])\n{lines}"
    )
    register_config_sources()
    return Config.fromfile(path)


@pytest.mark.parametrize('name', ['faster-rcnn', 'mask-rcnn'])
def test_the_lines_of_a_detector(tmp_path, name):
    base = f'mmdet::{name.replace("-", "_")}/{name}_r50_fpn_1x_coco.py'
    cfg = pasted(tmp_path, base, block(FIELDS_PAGE, 'AIBFasterRCNN'))
    base_model = Config(dict(model=get_config(base).model))
    for config in (cfg, base_model):
        det.shrink(config)
        roi_head = config.model.roi_head
        if name == 'mask-rcnn':
            roi_head.mask_roi_extractor.out_channels = 32
            roi_head.mask_head.update(
                in_channels=32, conv_out_channels=32, num_classes=5
            )
    model = det.build(cfg)
    if name == 'faster-rcnn':
        losses = det.loss(model, det.inputs())
        assert {'loss_cls', 'loss_kl_cls', 'loss_vq'} < losses.keys()
    ours = model.load_state_dict(
        det.build(base_model).state_dict(), strict=False
    )
    assert not ours.unexpected_keys


def test_the_lines_of_a_segmentor(tmp_path):
    base = 'mmseg::beit/beit-base_upernet_8xb2-160k_ade20k-640x640.py'
    cfg = pasted(tmp_path, base, block(FIELDS_PAGE, 'AIBEncoderDecoder'))
    base_model = get_config(base)
    base_model = seg.build(seg.shrink(Config(dict(model=base_model.model))))
    model = seg.build(seg.shrink(cfg))
    losses = seg.loss(model, seg.inputs())
    assert {'decode.loss_ce', 'loss_kl', 'loss_vq'} < losses.keys()
    loaded = model.load_state_dict(base_model.state_dict(), strict=False)
    assert not loaded.unexpected_keys


def test_the_lines_of_a_classifier(tmp_path):
    base = 'mmpretrain::resnet/resnet50_8xb32_in1k.py'
    lines = block(CLASSIFICATION, 'AIBImageClassifier')
    model = cls.build(pasted(tmp_path, base, lines))
    losses = cls.loss(model, cls.inputs(2, 64, 1000))
    assert set(losses) == {
        'loss_cls', 'loss_kl', 'kl_nats', 'kl_nats_sum', 'loss_vq',
        'loss_commit',
        'anchor_perplexity', 'anchors_used', 'attention_mean',
        'attention_std', 'attention_contrast', 'attention_saturated',
    }  # fmt: skip
    base_model = cls.build(get_config(base))
    loaded = model.load_state_dict(base_model.state_dict(), strict=False)
    assert not loaded.unexpected_keys


def test_the_lines_in_plain_pytorch():
    drawn = []

    def head(x):
        drawn.append(current().attention)
        return x.mean((2, 3))

    batch = torch.rand(4, 3, 16, 16), torch.randint(0, 64, (4,))
    names = dict(
        torch=torch,
        backbone=nn.Conv2d(3, 64, 3),
        head=head,
        loader=[batch, batch],
    )
    exec(block(REPOSITORY / 'docs' / 'your_own.md', 'collect()'), names)
    assert drawn == [1, 1]
    assert names['extra'].keys() == {'loss_vq', 'loss_commit'}
    assert names['loss'] > sum(names['extra'].values()) > 0
    learning = [*names['backbone'].named_parameters()]
    learning += names['bottleneck'].named_parameters()
    for name, parameter in learning:
        assert parameter.grad.abs().sum() > 0, name


def test_the_guards_of_troubleshooting(tmp_path):
    page = REPOSITORY / 'docs' / 'troubleshooting.md'
    base = 'mmdet::faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py'
    cfg = pasted(tmp_path, base, block(page, 'default_hooks'))
    added = ('checkpoint', 'finite', 'step_seed')
    guards = [cfg.default_hooks[name].type for name in added]
    check, *theirs = cfg.train_dataloader.dataset.pipeline
    assert len(theirs) > 3
    for guard in (*guards, check.type):
        scope, _, name = guard.partition('.')
        assert scope == 'mmaib'
        assert hasattr(hooks, name) or hasattr(datasets, name)


def anchors(page):
    """Names that GitHub gives to a page's headings."""
    headings = re.findall(r'^#+ (.*)$', page.read_text(), re.MULTILINE)
    return {
        re.sub(r'[^\w\- ]', '', heading.lower()).replace(' ', '-')
        for heading in headings
    }


@pytest.mark.parametrize(
    'page', PAGES, ids=lambda page: str(page.relative_to(REPOSITORY))
)
def test_links_lead_somewhere(page):
    for target in re.findall(r'\]\(([^)]+)\)', page.read_text()):
        if '://' in target:
            continue
        path, _, anchor = target.partition('#')
        found = (page.parent / path) if path else page
        assert found.exists(), target
        assert not anchor or anchor in anchors(found), target


OF_OWNERS = {'in_channels', 'init_cfg', 'latent_channels', 'type', 'kwargs'}
FIELDS = {
    'neck.bottleneck.attention': layers.VariationalAttention,
    'neck.bottleneck.quantizer': layers.AnchorQuantizer,
    'neck.bottleneck.modulation': layers.FeatureModulation,
    'neck.bottleneck.noise': layers.FeatureNoise,
    'latent.critic': layers.KLCritic,
    'modulation': layers.InformationGate,
    'default_hooks': hooks.BetaWarmupHook,
    'attention': hooks.AttentionEvalHook,
    'metric': AttentionMetric,
}
PREFIXES = {
    'neck.': models.AIBNeck,
    'neck.bottleneck.': layers.AttentiveBottleneck,
}


def row_of(name, page='fields'):
    """The one row, or paragraph, of a page in docs that begins so."""
    text = (REPOSITORY / 'docs' / f'{page}.md').read_text()
    (row,) = re.findall(
        rf'^(?:\| )?`{name}[`=].*(?:\n\w.*|\n`.*)*', text, re.M
    )
    return row


@pytest.mark.parametrize('name', FIELDS)
def test_a_row_names_every_field_of_its_part(name):
    row = row_of(name)
    for field, parameter in inspect.signature(FIELDS[name]).parameters.items():
        if field in OF_OWNERS:
            continue
        found = re.search(rf"\b{field}(?:=('\w+'|[\w.]+|\([^)]*\)))?", row)
        assert found, field
        default = parameter.default
        if found[1] and default is not inspect.Parameter.empty:
            written = eval(found[1])
            assert written == default or isinstance(written, bool), field


@pytest.mark.parametrize(
    'kind', [CalibrationMetric, DetectionCalibrationMetric]
)
def test_a_row_names_every_field_of_a_metric(kind):
    row = row_of(rf"dict\(type='mmaib\.{kind.__name__}'\)", 'uncertainty')
    for field, parameter in inspect.signature(kind).parameters.items():
        if field not in OF_OWNERS:
            assert f'`{field}={parameter.default!r}`' in row


def test_the_page_of_uncertainty(tmp_path):
    """Its lines on mmdet's config, and its fields."""
    page = REPOSITORY / 'docs' / 'uncertainty.md'
    base = 'mmdet::faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py'
    cfg = pasted(tmp_path, base, block(page, 'frozen'))
    model = det.build(det.shrink(cfg))
    base_model = det.build(det.shrink(get_config(base)))
    loaded = model.load_state_dict(base_model.state_dict(), strict=False)
    assert not loaded.unexpected_keys
    assert all('encoder.std' in key for key in loaded.missing_keys)
    (sample,) = det.predict(model, det.inputs(((96, 120),)))
    found = {*sample.pred_instances.keys()} - {'bboxes', 'scores', 'labels'}
    text = page.read_text()
    assert found
    assert all(f'`{name}`' in text for name in found)
    assert cfg.val_evaluator[0].type == 'CocoMetric'
    for choice in AVERAGES:
        assert repr(choice) in row_of('average', 'uncertainty')


@pytest.mark.parametrize(
    ('name', 'choices'),
    [
        ('neck.bottleneck.modulation', MODES),
        ('attention', (*CHANGES, OPEN)),
        ('frozen', FROZEN),
    ],
)
def test_a_row_names_every_choice(name, choices):
    row = row_of(name)
    for choice in choices:
        assert repr(choice) in row


@pytest.mark.parametrize('prefix', PREFIXES)
def test_every_field_of_the_neck_has_a_row(prefix):
    text = (REPOSITORY / 'docs' / 'fields.md').read_text()
    for field in inspect.signature(PREFIXES[prefix]).parameters:
        own = field in OF_OWNERS | {'map_channels', 'bottleneck'}
        assert own or f'| `{prefix}{field}` |' in text, field
