"""The comparison of maps on digits with clutter, shortened."""

from mmengine.config import Config
from support import CONFIGS, REPOSITORY

from mmaib.cli.runs import find_record

STUDY = REPOSITORY / 'tools' / 'experiments' / 'study.py'
FOLDER = CONFIGS / 'sample' / 'cluttered-digits'
NAME = 'vgg_1xb50-12e_cluttered-digits-48x48.py'
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
    metrics = find_record(records, configs[1].stem, 1)['metrics']
    assert 0 < metrics['attention/iou'] < 1
    assert 'ablation/mirror/accuracy/top1' in metrics
