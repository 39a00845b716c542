"""Linear layers of any kind: plain ones and those that libraries of quantised weights put in their place."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import nn

_DEPTH = 4
"""Of containers inside a layer (states of states) that are looked through for tensors."""


def is_linear(module: Any) -> bool:
    """Whether a module is a linear layer and no adapter around one."""
    if isinstance(module, nn.Linear):
        return True
    has_sizes = isinstance(getattr(module, "in_features", None), int) and isinstance(
        getattr(module, "out_features", None), int
    )
    return has_sizes and not hasattr(module, "base_layer") and not any(True for _ in module.children())


def linear_layers(model: Any) -> dict[str, nn.Module]:
    """Name -> linear layer, the output head left out; of a model without adapters."""
    head = model.get_output_embeddings() if hasattr(model, "get_output_embeddings") else None
    return {name: module for name, module in model.named_modules() if is_linear(module) and module is not head}


def is_quantized(module: Any) -> bool:
    """Whether a linear layer holds something else than one plain matrix of floats of 16 bits or more."""
    weight: Any = getattr(module, "weight", None)
    if type(weight) not in (nn.Parameter, torch.Tensor):
        return True
    return not weight.is_floating_point() or weight.element_size() < 2


def is_plain(module: Any) -> bool:
    """Whether a layer is torch's own linear layer over one plain matrix."""
    return type(module) is nn.Linear and not is_quantized(module)


def has_quantized_layers(model: nn.Module) -> bool:
    """Whether any linear layer of a model, with adapters or without, holds fewer bits."""
    return any(is_linear(module) and is_quantized(module) for module in model.modules())


def count_weights(module: Any) -> int:
    """Numbers that the weight of a linear layer stands for, however they are stored."""
    count: int = module.in_features * module.out_features
    return count


def held_bytes(module: nn.Module) -> int:
    """Bytes of all tensors that a layer holds: weights, scales, zeros, code books; each storage once."""
    storages: dict[int, int] = {}
    for tensor in _tensors(vars(module), _DEPTH):
        storage = tensor.untyped_storage()
        storages[storage.data_ptr()] = storage.nbytes()
    return sum(storages.values())


def plain_tensors(tensor: torch.Tensor) -> list[torch.Tensor]:
    """A tensor itself, or the tensors that one of a library's own kind is made of."""
    if not hasattr(tensor, "__tensor_flatten__"):
        return [tensor]
    names, _ = tensor.__tensor_flatten__()
    return [part for name in names for part in plain_tensors(getattr(tensor, name))]


def _tensors(value: Any, depth: int) -> Iterator[torch.Tensor]:
    if isinstance(value, torch.Tensor):
        yield from plain_tensors(value)
        if depth and getattr(value, "quant_state", None) is not None:
            yield from _tensors(vars(value.quant_state), depth - 1)
        for name in ("SCB", "CB"):
            if isinstance(getattr(value, name, None), torch.Tensor):
                yield getattr(value, name)
    elif depth and isinstance(value, dict):
        for item in value.values():
            yield from _tensors(item, depth - 1)
    elif depth and isinstance(value, list | tuple):
        for item in value:
            yield from _tensors(item, depth - 1)
    elif depth and type(value).__name__ in ("QuantState", "MatmulLtState"):
        yield from _tensors(vars(value), depth - 1)
