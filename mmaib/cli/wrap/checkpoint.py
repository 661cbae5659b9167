"""What a checkpoint of the base model has for a model with attention."""

from __future__ import annotations

from torch import Tensor, nn

from mmaib.losses import Reporter
from mmaib.preflight.checkpoint import read_checkpoint


def compare(model: nn.Module, path: str) -> tuple[list[str], bool]:
    """What a checkpoint of the base model has for the model, and whether
    nothing of it is missing, unknown or of another shape."""
    read = read_checkpoint(path)
    state = {
        k.removeprefix('module.'): v
        for k, v in read.get('state_dict', read).items()
        if isinstance(v, Tensor)
    }
    wanted = model.state_dict()
    other = []
    for key, value in wanted.items():
        theirs = key.replace('neck.neck.', 'neck.', 1)
        for name in {key, theirs} & state.keys():
            if state[name].shape != value.shape:
                other.append(
                    f'{name}: {tuple(state[name].shape)}, the model has '
                    f'{tuple(value.shape)}'
                )
                del state[name]
    result = model.load_state_dict(state, strict=False)
    shapes = {line.partition(':')[0] for line in other}
    missing = [
        k
        for k in result.missing_keys
        if k.replace('neck.neck.', 'neck.', 1) not in shapes
    ]
    ours = [k for k in missing if is_ours(model, k)]
    theirs_missing = [k for k in missing if not is_ours(model, k)]
    unknown = list(result.unexpected_keys)
    loaded = len(wanted) - len(result.missing_keys)
    lines = [
        f'{loaded} tensors of the base model loaded, {len(ours)} of mmaib '
        'start anew'
    ]
    for title, keys in (
        ('missing of the base model', theirs_missing),
        ('unknown to the model', unknown),
        ('of another shape', other),
    ):
        if keys:
            more = f' and {len(keys) - 5} more' if len(keys) > 5 else ''
            lines.append(f'{title}: {", ".join(keys[:5])}{more}')
    return lines, not (theirs_missing or unknown or other)


def is_ours(model: nn.Module, key: str) -> bool:
    """Whether a key is of one of mmaib's layers inside the model."""
    name = key
    while '.' in name:
        name = name.rpartition('.')[0]
        if isinstance(model.get_submodule(name), Reporter):
            return True
    return False
