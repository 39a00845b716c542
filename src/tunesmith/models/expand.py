"""Block expansion (LLaMA Pro, arXiv 2401.02415): copies of decoder blocks that add nothing until they are trained.

A block adds attention and feed-forward outputs to what passes through it. In a copy whose output projections are zero
both are 0, so what passes through stays the same, bit for bit.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import nn

from tunesmith.core.errors import ModelError
from tunesmith.models.freeze import EXPANDED
from tunesmith.models.targets import layers_of

_OUTPUTS = frozenset(
    "o_proj out_proj dense c_proj wo down_proj w2 fc2 fc_out dense_4h_to_h down_proj_bias".split()  # noqa: SIM905
)
"""Names of the last projections of attention and feed-forward parts, routed experts among them."""


def new_numbers(n_layers: int, count: int) -> list[int]:
    """Numbers that `count` new blocks have in the expanded model: one after each group of layers.

    Raises:
        ModelError: the layers do not fall into that many groups of equal length.
    """
    if n_layers % count:
        fitting = [n for n in range(1, n_layers + 1) if n_layers % n == 0]
        raise ModelError(f"num_expand: {n_layers} layers do not fall into {count} equal groups; {fitting} do")
    size = n_layers // count
    return [group * (size + 1) + size for group in range(count)]


@torch.no_grad()
def expand(model: Any, count: int) -> list[int]:
    """Adds blocks to a model in memory, and says so in its configuration.

    Args:
        model: a causal language model; it is for saving afterwards, since layers keep their old numbers inside.
        count: `num_expand`.

    Returns:
        The numbers of the new blocks.

    Raises:
        ModelError: the model cannot be expanded so.
    """
    prefix, layers = layers_of(model)
    numbers = new_numbers(len(layers), count)
    size = len(layers) // count
    blocks: list[nn.Module] = []
    for number, layer in enumerate(layers):
        blocks.append(layer)
        if (number + 1) % size == 0:
            blocks.append(_silent_copy(layer))
    model.set_submodule(prefix, nn.ModuleList(blocks))
    _grow_config(model.config.get_text_config(), len(layers), size)
    setattr(model.config.get_text_config(), EXPANDED, numbers)
    return numbers


def _silent_copy(layer: nn.Module) -> nn.Module:
    block = copy.deepcopy(layer)
    zeroed = 0
    for name, parameter in block.named_parameters():
        if _OUTPUTS & set(name.split(".")):
            parameter.zero_()
            zeroed += 1
    if not zeroed:
        raise ModelError("num_expand: no output projection is known in the blocks of this model")
    return block


def _grow_config(config: Any, n_layers: int, size: int) -> None:
    """The number of layers, and every list in the configuration that has an entry for each layer."""
    grown = {}
    for name, value in config.to_dict().items():
        if isinstance(value, list) and len(value) == n_layers and name != EXPANDED:
            doubled = ([item, item] if (place + 1) % size == 0 else [item] for place, item in enumerate(value))
            grown[name] = [item for items in doubled for item in items]
    # The number first: configurations check their lists against it.
    config.num_hidden_layers = n_layers + n_layers // size
    for name, value in grown.items():
        setattr(config, name, value)
