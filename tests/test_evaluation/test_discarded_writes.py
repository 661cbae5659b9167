"""What an evaluation writes for nobody: every way to a file that a metric
has, and what is on disk afterwards."""

import os
import pickle
import shutil
import tempfile
import threading
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from mmengine import dump
from mmengine.evaluator import BaseMetric, DumpResults, Evaluator
from PIL import Image
from support import segmentation as seg

from mmaib.evaluation import ablation_metrics
from mmaib.evaluation.discarded_writes import discarded_writes, without_files
from mmaib.hooks import AttentionEvalHook

PIXELS = np.full((4, 4, 3), 7, np.uint8)


def append(path):
    with open(path, 'a') as file:
        file.write('more')


def of_bytes(path):
    with open(os.fsencode(path), 'wb'):
        pass


def replaced(path):
    part = path.with_suffix('.part')
    part.write_text('new')
    os.replace(part, path)


def emptied(path):
    shutil.rmtree(path.parent)
    path.parent.mkdir()
    path.write_text('new')


def rewritten(path):
    path.unlink()
    path.write_text('new')


WRITERS = {
    'open': lambda path: path.write_text('new'),
    'append': append,
    'bytes': of_bytes,
    'replace': replaced,
    'unlink': rewritten,
    'rmtree': emptied,
    'copy': lambda path: shutil.copy(__file__, path),
    'mmengine': lambda path: dump([1], str(path), 'json'),
    'torch': lambda path: torch.save([1], path),
    'numpy': lambda path: np.save(path.with_suffix('.npy'), PIXELS),
    'cv2': lambda path: cv2.imwrite(str(path.with_suffix('.png')), PIXELS),
    'pillow': lambda path: Image.fromarray(PIXELS).save(path, 'png'),
    'matplotlib': lambda path: Figure().savefig(path, format='png'),
    'thrown away': lambda path: os.remove(path),
    'elsewhere': lambda path: os.rename(path, path.with_name('moved')),
    'folder': lambda path: (path.parent / 'deep' / 'er').mkdir(parents=True),
}


def disk(folder):
    return {
        str(p): p.read_bytes() if p.is_file() else None
        for p in sorted(folder.rglob('*'))
    }


@pytest.mark.parametrize('name', WRITERS)
def test_nothing_on_disk_changes(name, tmp_path):
    folder = tmp_path / 'out'
    folder.mkdir()
    for suffix in ('.bin', '.png'):
        (folder / f'results{suffix}').write_text('theirs')
    before = disk(folder)
    (tmp_path / 'scratch').mkdir()
    with discarded_writes(str(tmp_path / 'scratch')):
        WRITERS[name](folder / 'results.bin')
    assert disk(folder) == before
    # and each of these writes when it may
    WRITERS[name](folder / 'results.bin')
    assert disk(folder) != before


def test_what_was_written_is_read_back(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    there, new = Path('there.txt'), Path('new.pkl')
    there.write_text('one ')
    (tmp_path / 'scratch').mkdir()
    (tmp_path / 'kept').mkdir()
    with discarded_writes(str(tmp_path / 'scratch'), 'kept'):
        assert there.read_text() == 'one '
        append(there)
        append(tmp_path / there)
        new.write_bytes(pickle.dumps([2]))
        os.replace(new, 'newer.pkl')
        (Path('kept') / 'file').write_text('kept')
        with tempfile.TemporaryDirectory() as folder:
            (Path(folder) / 'a').write_text('a')
            assert os.listdir(folder) == ['a']
        # a log of another thread
        thread = threading.Thread(target=append, args=('log.txt',))
        thread.start()
        thread.join()
    for _ in range(2):  # another call of the same evaluation
        with discarded_writes(str(tmp_path / 'scratch')):
            assert there.read_text() == 'one moremore'
            assert pickle.loads(Path('newer.pkl').read_bytes()) == [2]
    assert there.read_text() == 'one '
    assert {p.name for p in tmp_path.iterdir()} == {
        'there.txt', 'kept', 'log.txt', 'scratch'
    }  # fmt: skip
    assert Path('kept/file').read_text() == 'kept'


class Users(BaseMetric):
    """A metric of a user's, whose fields nobody knows: it writes a line an
    image, and counts the lines in the end."""

    default_prefix = 'users'

    def __init__(self, lines, fails_at=None):
        super().__init__()
        self.lines = Path(lines)
        self.fails_at = fails_at

    def process(self, data_batch, data_samples):
        for sample in data_samples:
            if len(self.results) == self.fails_at:
                raise RuntimeError('of the user')
            value = sample['seg_logits']['data'].double().sum().item()
            with self.lines.open('a') as file:
                file.write(f'{value}\n')
            self.results.append(value)

    def compute_metrics(self, results):
        values = [*map(float, self.lines.read_text().split())]
        self.lines.with_suffix('.mean').write_text(str(np.mean(values)))
        return dict(mean=float(np.mean(values[-len(results) :])))


def model_and_inputs():
    cfg = seg.shrink(seg.config(seg.AIB_QT))
    cfg.model.test_draws = 'mean'
    cfg.model.neck.bottleneck = dict(
        modulation=dict(type='mmaib.InformationGate')
    )
    torch.manual_seed(0)
    model = seg.build(cfg).eval()
    conv = model.neck.bottleneck.attention.mean_conv
    torch.nn.init.normal_(conv.weight, std=0.2)
    return model, seg.inputs(((64, 64),) * 3)


def test_files_of_a_test_hold_the_answers_of_the_models_own_map(
    new_runner, tmp_path
):
    """Those of the changed maps are figures alone."""
    from mmseg.evaluation import IoUMetric

    model, data = model_and_inputs()
    for number, sample in enumerate(data['data_samples']):
        sample.set_metainfo(dict(img_path=f'{number}.jpg'))
    written = {}
    for name, changes in (('with', ['mirror', 'shuffle']), ('without', [])):
        folder = tmp_path / 'out' / name
        folder.mkdir(parents=True)
        iou = IoUMetric(output_dir=str(folder / 'png'), format_only=True)
        dump = DumpResults(str(folder / 'answers.pkl'))
        runner = new_runner(
            model,
            data,
            [AttentionEvalHook(ablations=changes)],
            test_evaluator=Evaluator(
                [Users(folder / 'lines.csv'), iou, dump],
            ),
        )
        runner.test_evaluator.dataset_meta = dict(classes=['a'] * 5)
        found = runner.test()
        answers = pickle.loads((folder / 'answers.pkl').read_bytes())
        written[name] = {
            path.name: path.read_bytes()
            for path in folder.rglob('*')
            if path.is_file() and path != folder / 'answers.pkl'
        }
        written[name]['answers'] = [
            x['seg_logits']['data'].numpy().tobytes() for x in answers
        ]
        assert found['users/mean']
    assert written['with'] == written['without']
    assert len(written['with']) == 3 + len(data['inputs'])


def test_figures_of_a_metric_that_writes_are_those_of_changed_maps(
    new_runner, tmp_path
):
    model, data = model_and_inputs()
    metric = Users(tmp_path / 'lines.csv')
    runner = new_runner(model, data, val_evaluator=Evaluator([metric]))
    loop = runner.val_loop
    found = ablation_metrics(
        model, loop.dataloader, loop.evaluator, ['open', 'mirror']
    )
    assert found['open/users/mean'] != found['mirror/users/mean']
    assert not metric.lines.exists()
    assert metric.results == []
    # and in the loop it writes as ever
    runner.val()
    assert len(metric.lines.read_text().split()) == 3


@pytest.mark.parametrize('training', [True, False])
def test_an_exception_leaves_the_model_and_the_metric_as_they_were(
    new_runner, tmp_path, training
):
    model, data = model_and_inputs()
    metric = Users(tmp_path / 'lines.csv', fails_at=1)
    runner = new_runner(model, data, val_evaluator=Evaluator([metric]))
    loop = runner.val_loop
    model.train(training)
    opened = open
    with pytest.raises(RuntimeError, match='of the user'):
        ablation_metrics(model, loop.dataloader, loop.evaluator, ['mirror'])
    assert model.training is training
    assert metric.results == []
    assert open is opened
    assert not vars(loop.evaluator).keys() & {'process', 'evaluate'}


def test_where_ranks_meet_is_not_redirected(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    metric = Users('lines.csv')
    metric.collect_dir = str(tmp_path / 'meet')
    for folder in (metric.collect_dir, '.dist_test'):
        os.mkdir(folder)
    metric.process = lambda *_: [
        Path(folder, 'part_0.pkl').write_text('part')
        for folder in (metric.collect_dir, '.dist_test', '.')
    ]
    evaluator = Evaluator([metric])
    with without_files(evaluator):
        evaluator.process([])
    assert {str(p.parent.name) for p in tmp_path.rglob('part_0.pkl')} == {
        'meet', '.dist_test'
    }  # fmt: skip
