import pytest
import torch
from support import classification as cls
from support.classification import OURS, make


def small(name='vgg16-aib-qt', **options):
    cfg = cls.shrink(cls.config(name))
    cfg.merge_from_dict(options)
    torch.manual_seed(0)
    return cls.build(cfg)


@pytest.mark.parametrize(
    ('fields', 'match'),
    [
        (dict(latent='mmaib.GaussianEncoder'), 'latent must be a dict'),
        (dict(latent=dict(critic='adversarial')), 'critic must be a dict'),
    ],
)
def test_text_in_place_of_fields(fields, match):
    with pytest.raises(TypeError, match=match):
        make(head=dict(OURS['head'], **fields))


def test_features_that_are_no_map_or_of_another_width():
    model = make().eval()
    vit = [torch.randn(2, 17, 64)]
    with pytest.raises(ValueError, match=r"\(2, 17, 64\): .*'featmap'"):
        model.neck(vit)
    with pytest.raises(ValueError, match=r'= 64 numbers .* \(2, 32\)'):
        model.head((torch.randn(2, 32),))


def test_pre_logits_are_what_the_last_layer_sees():
    """mmpretrain's contract of `extract_feat`."""
    model = small().eval()
    x = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        features = model.extract_feat(x, stage='pre_logits')
        assert torch.equal(model.head.fc(features), model(x))
