"""Convert BEiT's public weights to mmseg's names.

    python tools/model_converters/beit2mmseg.py \
        beit_base_patch16_224_pt22k_ft22k.pth \
        pretrain/beit_base_patch16_224_pt22k_ft22k.pth

The weights are linked from
https://github.com/microsoft/unilm/tree/master/beit. Nothing but tensors is
read from the file. The relative-position tables keep their grid;
`mmaib.AIBBEiT` resizes them to its own when it loads them.
"""

import argparse
import os
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from pickle import UnpicklingError

import torch
from torch import Tensor

RENAMED = (
    (r'^patch_embed\.proj\.', 'patch_embed.projection.'),
    (r'^blocks\.(\d+)\.norm', r'layers.\1.ln'),
    (r'^blocks\.(\d+)\.mlp\.fc1\.', r'layers.\1.ffn.layers.0.0.'),
    (r'^blocks\.(\d+)\.mlp\.fc2\.', r'layers.\1.ffn.layers.1.'),
    (r'^blocks\.', 'layers.'),
)
# classification and masked-image heads, and buffers that mmseg makes itself
DROPPED = re.compile(
    r'^(head|fc_norm|norm|lm_head)\.|^mask_token$|relative_position_index$'
)
SHARED_TABLE = 'rel_pos_bias.relative_position_bias_table'


def convert(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """BEiT's state dict under mmseg's names.

    Args:
        weights: as in the public checkpoints' field ``model``. A table that
            all layers share, as pretraining without fine-tuning has it, is
            given to each layer.

    Raises:
        ValueError: if it does not look like BEiT.
    """
    depth = len({k.split('.')[1] for k in weights if k.startswith('blocks.')})
    if not depth or 'patch_embed.proj.weight' not in weights:
        raise ValueError(
            'no BEiT: expected keys like patch_embed.proj.weight and '
            f'blocks.0.attn.q_bias, got {sorted(weights)[:4]} ...'
        )
    converted = {}
    for name, value in weights.items():
        if name == SHARED_TABLE:
            for layer in range(depth):
                table = f'layers.{layer}.attn.relative_position_bias_table'
                converted[table] = value.clone()
        elif not DROPPED.search(name):
            for pattern, replacement in RENAMED:
                name = re.sub(pattern, replacement, name)
            converted[name] = value
    return converted


def read(path: Path) -> Mapping[str, Tensor]:
    """The tensors of a checkpoint.

    Raises:
        FileNotFoundError: if there is none.
        UnpicklingError: if it holds more than tensors and plain types.
    """
    if not path.is_file():
        raise FileNotFoundError(
            f'{path} does not exist; BEiT-base, fine-tuned on ImageNet-22k, '
            'is linked from '
            'https://github.com/microsoft/unilm/tree/master/beit'
        )
    checkpoint = torch.load(path, map_location='cpu', weights_only=True)
    return checkpoint.get('model', checkpoint)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument('src', type=Path, help='as downloaded')
    parser.add_argument('dst', type=Path, help='file to write')
    args = parser.parse_args()
    try:
        weights = convert(read(args.src))
    except (FileNotFoundError, ValueError, UnpicklingError) as error:
        sys.exit(f'beit2mmseg: {error}')
    args.dst.parent.mkdir(parents=True, exist_ok=True)
    partial = args.dst.with_name(f'.{args.dst.name}.{os.getpid()}')
    torch.save(weights, partial)
    os.replace(partial, args.dst)
    print(f'{len(weights)} tensors written to {args.dst}')


if __name__ == '__main__':
    main()
