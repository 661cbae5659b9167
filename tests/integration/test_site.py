"""The site's pages: each block of Python runs, and the reference of configs
has what the signatures have."""

import inspect
import re
import subprocess
import sys
from importlib.util import module_from_spec, spec_from_file_location

import mmcv
import pytest
import torch
from mmengine.config import Config
from support import REPOSITORY
from support import classification as cls
from support import detection as det
from test_docs import blocks, pasted

from mmaib.layers import capture_attention
from mmaib.losses import Reporter

DOCS = REPOSITORY / 'docs'
# where the blocks of a page are run: here, in test_docs.py or test_wrap.py
RUN = {'tutorial': 6, 'your_own': 3, 'information_gate': 2, 'any_model': 3,
       'uncertainty': 2, 'rectangles': 2, 'troubleshooting': 1,
       'fields': 2, 'explain': 1}  # fmt: skip


def files_and_lines(page):
    """The page's files by their first line, and its other blocks."""
    files, lines = {}, []
    for block in blocks(page):
        named = re.match(r'# (\w+\.py)\n', block)
        if named:
            files[named[1]] = block
        else:
            lines.append(block)
    return files, lines


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


def test_every_block_of_python_is_run():
    found = {page.stem: len(blocks(page)) for page in DOCS.rglob('*.md')}
    assert {name: n for name, n in found.items() if n} == RUN


def test_every_tool_that_a_page_names_is_there():
    for page in DOCS.rglob('*.md'):
        for path in re.findall(r'\btools/[\w/]+\.(?:py|sh)', page.read_text()):
            assert (REPOSITORY / path).exists(), f'{page.name}: {path}'


def test_the_tutorial(folder, capsys):
    files, lines = files_and_lines(DOCS / 'tutorial.md')
    for name, text in files.items():
        (folder / name).write_text(text)
    names = {}
    for text in lines:
        exec(text, names)
    assert names['default_hooks']['attention']['ablations'][0] == 'mirror'
    assert "'loss_info'" in capsys.readouterr().out


def test_why_this_box(folder, capsys):
    cfg = det.shrink(det.plain_config())
    cfg.dump(folder / 'small.py')
    model = det.build(cfg)
    torch.nn.init.constant_(model.roi_head.bbox_head.fc_cls.bias[:1], 5.0)
    torch.save(dict(state_dict=model.state_dict(), meta={}), 'small.pth')
    noise = torch.randint(0, 256, (96, 128, 3), dtype=torch.uint8)
    mmcv.imwrite(noise.numpy(), 'image.jpg')
    (text,) = files_and_lines(DOCS / 'explain.md')[1]
    exec(text, dict(config='small.py', checkpoint='small.pth'))
    numbers = capsys.readouterr().out.splitlines()[-1].split()[-4:]
    assert all(float(number) > 0 for number in numbers)


def test_parts_of_one_s_own(folder):
    files, _ = files_and_lines(DOCS / 'your_own.md')
    for name, text in files.items():
        (folder / name).write_text(text)
    cfg = det.shrink(Config.fromfile(folder / 'my_detector.py'))
    model = det.build(cfg)
    bottleneck = model.neck.bottleneck
    assert type(bottleneck.attention).__module__ == 'my_parts'
    losses = det.loss(model, det.inputs())
    assert {'loss_vq', 'loss_kl_cls', 'attention_contrast'} <= losses.keys()
    sum(v for k, v in losses.items() if k == 'loss_vq').backward()
    with capture_attention(model) as maps:
        det.predict(model, det.inputs())
    assert len(maps) == 5
    for captured in maps:
        assert captured.mean.amax((-2, -1)).allclose(torch.ones(1))
    # by hand: where the map is 0 the neighbours' mean, where it is 1 x
    x = torch.rand(2, 32, 9, 9)
    zeros, ones = torch.zeros(4, 1, 9, 9), torch.ones(4, 1, 9, 9)
    blurred = bottleneck.modulation(x, zeros, 0)
    assert blurred.shape == (4, 32, 9, 9)
    by_hand = x[0, :, 2:7, 3:8].mean((-2, -1))
    torch.testing.assert_close(blurred[2, :, 4, 5], by_hand)
    open_ = bottleneck.modulation(x, ones, 0)
    torch.testing.assert_close(open_[:2], x)


def test_the_lines_on_rectangles():
    names = {}
    for text in blocks(DOCS / 'rectangles.md'):
        exec(text, names)
    neck = {**cls.OURS['neck'], 'bottleneck': names['bottleneck']}
    model = cls.make({**cls.OURS, **names['model'], 'neck': neck}).train()
    assert 'loss_equivariance' in cls.loss(model, cls.inputs(2, 32))


def test_the_lines_on_uncertainty(tmp_path):
    draws, second_stage = blocks(DOCS / 'uncertainty.md')
    names = {}
    exec(draws, names)
    model = cls.make(**names['model'])
    (sample,) = cls.predict(model, cls.inputs(1))
    assert sample.mutual_information > 0
    base = 'mmdet::faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py'
    cfg = pasted(tmp_path, base, second_stage)
    metrics = [metric.type for metric in cfg.val_evaluator]
    assert metrics == ['CocoMetric', 'mmaib.DetectionCalibrationMetric']
    model = det.build(det.shrink(cfg))
    learning = {n for n, p in model.named_parameters() if p.requires_grad}
    assert learning
    assert all(name.startswith('roi_head.bbox_head') for name in learning)
    (found,) = det.predict(model.eval(), det.inputs())[:1]
    assert 'bbox_std' in found.pred_instances


def test_the_lines_of_a_readout(tmp_path):
    lines = blocks(DOCS / 'information_gate.md')[0]
    base = 'mmdet::faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py'
    cfg = pasted(tmp_path, base, lines)
    added = cfg.default_hooks.gate, cfg.default_hooks.attention
    assert [hook.type for hook in added] == [
        'mmaib.BetaWarmupHook', 'mmaib.AttentionEvalHook',
    ]  # fmt: skip
    model = det.build(det.shrink(cfg))
    losses = det.loss(model, det.inputs())
    assert 'loss_info' in losses
    learning = {n for n, p in model.named_parameters() if p.requires_grad}
    own = {
        f'{name}.{parameter}'
        for name, module in model.named_modules()
        if isinstance(module, Reporter)
        for parameter, _ in module.named_parameters()
    }
    assert learning
    assert learning <= own


def config_reference():
    spec = spec_from_file_location('reference', DOCS / 'config_reference.py')
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_config_reference_has_every_field():
    made = config_reference()
    sections = dict(
        re.findall(r'^### mmaib\.(\w+)\n(.*?)(?=^##|\Z)', made.reference(),
                   re.M | re.S)
    )  # fmt: skip
    assert {'AIBNeck', 'InformationGate', 'AttentionMetric'} < sections.keys()
    undocumented = {'init_cfg', 'data_preprocessor', 'kwargs', 'args'}
    for _, name, built in made.registered():
        section = sections[name]
        if 'Its fields are those of' in section:
            assert built.__init__.__module__.split('.')[0] != 'mmaib'
            continue
        for field, parameter in inspect.signature(built).parameters.items():
            if parameter.kind in (
                parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL,
            ):  # fmt: skip
                continue
            row = re.search(
                rf'^\| `{field}` \| (.*?) \| (.*) \|$', section, re.M
            )
            assert row, f'{name}.{field}'
            default = parameter.default
            if default is not inspect.Parameter.empty:
                assert row[1] == f'`{default!r}`'
            assert row[2] or field in undocumented, f'{name}.{field}'


def make(*args):
    return subprocess.run(
        ['make', '--no-print-directory', *args],
        cwd=REPOSITORY,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def test_the_site_has_no_warning(tmp_path):
    """Its packages are installed once, outside the checkout."""
    if make('venv-path').stdout.strip() != sys.prefix:
        pytest.skip('the site is built in the environment of `make setup`')
    installed = make('docs-env')
    if installed.returncode:
        pytest.skip(
            'no Sphinx, and it could not be installed: see `make docs-env`. '
            f'{installed.stdout[-500:]}'
        )
    done = make('docs', f'SITE={tmp_path}')
    assert done.returncode == 0, done.stdout[-3000:]
    assert (tmp_path / 'api.html').exists()
