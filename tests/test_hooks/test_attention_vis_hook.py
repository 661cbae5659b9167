import pytest
from mmengine.model import BaseTTAModel, MMDistributedDataParallel
from torch import distributed, nn

from mmaib.hooks import AttentionVisHook, attention_vis_hook
from mmaib.layers import AttentiveBottleneck


class Runner:
    model = AttentiveBottleneck(4).eval()


@pytest.mark.parametrize(
    ('main', 'mode', 'batch', 'captures'),
    [
        (True, 'val', 0, True),
        (True, 'test', 6, True),
        (True, 'val', 1, False),
        (True, 'train', 0, False),
        (False, 'val', 0, False),
    ],
)
def test_captures_on_the_main_process_every_interval(
    monkeypatch, main, mode, batch, captures
):
    monkeypatch.setattr(attention_vis_hook, 'is_main_process', lambda: main)
    hook = AttentionVisHook(interval=3)
    hook._before_iter(Runner, batch, mode=mode)
    watched = bool(Runner.model.attention._forward_hooks)
    # Nothing was seen and nothing put out: the hook lets go, draws nothing.
    hook._after_iter(Runner, batch, outputs=[], mode=mode)
    assert watched == captures
    assert not Runner.model.attention._forward_hooks


class TTA(BaseTTAModel):
    def merge_preds(self, samples):
        return samples


@pytest.fixture
def one_rank(tmp_path):
    distributed.init_process_group(
        'gloo', init_method=f'file://{tmp_path}/rendezvous', rank=0,
        world_size=1,
    )  # fmt: skip
    yield
    distributed.destroy_process_group()


@pytest.mark.parametrize(('augmented', 'watches'), [(True, 0), (False, 1)])
def test_nothing_is_drawn_of_augmentation_through_ddp(
    one_rank, augmented, watches
):
    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.bottleneck = AttentiveBottleneck(4)

        def test_step(self, data):
            return data

    bare = Model()

    class Distributed:
        model = MMDistributedDataParallel(TTA(bare) if augmented else bare)

    hook = AttentionVisHook()
    hook._before_iter(Distributed, 0, mode='test')
    assert len(bare.bottleneck.attention._forward_hooks) == watches
    hook._after_iter(Distributed, 0, outputs=[], mode='test')
    assert not bare.bottleneck.attention._forward_hooks


def test_bad_interval():
    with pytest.raises(ValueError, match='interval must be >= 1'):
        AttentionVisHook(interval=0)
