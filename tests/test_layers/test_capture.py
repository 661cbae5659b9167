import torch

from mmaib.draws import Draws
from mmaib.layers import AttentiveBottleneck, capture_attention


def test_capture_records_and_lets_go():
    bottleneck = AttentiveBottleneck(4, quantizer=dict(num_anchors=3)).eval()
    x = torch.randn(2, 4, 6, 6)
    with capture_attention(bottleneck) as maps:
        bottleneck(x)
        with Draws(attention=5).open():
            bottleneck.attend(x)
    bottleneck(x)
    assert [m.level for m in maps] == [0, 1]
    mean, _ = bottleneck.attention(x)
    assert torch.equal(maps[0].mean, mean)
    assert torch.equal(maps[0].quantized, bottleneck.quantizer(mean))
    assert maps[1].quantized.shape == (2, 1, 6, 6)
    assert torch.isin(maps[1].quantized, bottleneck.quantizer.anchors).all()
