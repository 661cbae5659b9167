"""Hooks that tests put into a training by `custom_imports`."""

import atexit
import os
import resource
import signal
from pathlib import Path

import torch
from mmengine.dist import get_rank
from mmengine.hooks import Hook
from mmengine.registry import HOOKS, TRANSFORMS

from mmaib.functional import draw_gaussian
from mmaib.layers.image_cells import own_cells, own_mean


@HOOKS.register_module()
class KillAt(Hook):
    """SIGKILL before a step, or while the next checkpoint is written."""

    def __init__(self, step, writing=False):
        self.step = step
        self.writing = writing

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        if runner.iter == self.step and not self.writing:
            os.kill(os.getpid(), signal.SIGKILL)

    def before_save_checkpoint(self, runner, checkpoint):
        if runner.iter >= self.step and self.writing:
            # the system ends the process at the file's first byte too many
            signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
            resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
            limit = 2**20
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))


@HOOKS.register_module()
class RankProbe(Hook):
    """Write what a rank has seen to OUT/rankN.pth."""

    priority = 'LOWEST'

    def __init__(self, out):
        self.out = out
        atexit.register(self.write_threads)
        self.maps = []
        self.seen = dict(noise=[], logged=[], own=[])

    def write_threads(self):
        """Those of C++, too, which Python does not list."""
        names = [f.read_text() for f in Path('/proc/self').glob('task/*/comm')]
        path = Path(f'{self.out}/rank{os.environ["RANK"]}.threads')
        path.write_text(''.join(names))

    def before_train(self, runner):
        def keep(module, args, output):
            mean = output.mean.detach()
            self.maps.append(own_mean(mean, own_cells(mean)))

        bottleneck = runner.model.module.neck.bottleneck
        bottleneck.attention.register_forward_hook(keep)

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        self.maps.clear()
        with torch.random.fork_rng():
            zeros = torch.zeros(1, 4)
            self.seen['noise'].append(draw_gaussian(zeros, zeros + 1))

    def after_train_iter(
        self, runner, batch_idx, data_batch=None, outputs=None
    ):
        self.seen['own'].append(torch.stack(self.maps).mean().item())
        self.seen['logged'].append(outputs['attention_mean'])

    def after_train(self, runner):
        model = runner.model.module
        self.seen['parameters'] = {
            name: p.detach() for name, p in model.named_parameters()
        }
        torch.save(self.seen, f'{self.out}/rank{get_rank()}.pth')


@TRANSFORMS.register_module()
class Poison:
    """Put a NaN into one image."""

    def __init__(self, call):
        self.left = call

    def __call__(self, results):
        self.left -= 1
        results['img'] = results['img'].astype('float32')
        if self.left == 0:
            results['img'][0, 0, 0] = float('nan')
        return results
