import pytest

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


def test_bad_interval():
    with pytest.raises(ValueError, match='interval must be >= 1'):
        AttentionVisHook(interval=0)
