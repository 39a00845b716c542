"""Bytes that optimizer states take: worked out from the shapes before a run, and counted on a live optimizer."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from tunesmith.config.optimizer_rules import optim_settings, optimizer_family
from tunesmith.training.optimizers.badam_ratio import share_of
from tunesmith.training.optimizers.low_rank import plan_of, target_weights

if TYPE_CHECKING:
    from tunesmith.config.schema import RunConfig

_BLOCKS_FROM = 4096
"""bitsandbytes and torchao keep states of smaller weights in float32."""
_NATIVE: tuple[tuple[str, float], ...] = (
    (r"adafactor", 0),
    (r"sgd", 0),
    (r"adagrad|rmsprop$|rmsprop_bnb(_32bit)?", 4),
    (r"(paged_)?lion_8bit|rmsprop_bnb_8bit", 1 + 4 / 256),
    (r"(paged_)?lion_32bit", 4),
    (r"(paged_)?ademamix(_32bit)?", 12),
    (r"(paged_)?ademamix_8bit", 3 * (1 + 4 / 256)),
    (r".*8bit", 2 * (1 + 4 / 256)),
    (r"adamw_torch_4bit", 2 * (0.5 + 4 / 128)),
    (r"grokadamw", 12),
    (r".*", 8),
)
"""Value of `optim`, as a pattern -> bytes for each number of a weight; with 8 bits: a byte, and 4 for 256 of them."""


def state_bytes(config: RunConfig, model: nn.Module) -> int:
    """Bytes that the states of the trained weights will take.

    Args:
        config: names the optimizer.
        model: what is trained has `requires_grad`.
    """
    family = optimizer_family(config)
    trained = {n: w for n, w in model.named_parameters() if w.requires_grad}
    if family == "badam":
        return _badam(config, trained)
    if family in ("galore", "apollo"):
        plan = plan_of(config)
        targets = target_weights(model, plan.target)
        small = _low_rank(plan.group, factored=plan.base == "adafactor")
        return int(sum(small(w.shape) if id(w) in targets else _plain(plan.base)(w.shape) for w in trained.values()))
    apart = {id(w) for m in (model.get_input_embeddings(), model.get_output_embeddings()) if m for w in m.parameters()}
    each = _families(config)[family]
    return int(sum(each(w.shape, id(w) in apart) for w in trained.values()))


def _families(config: RunConfig) -> dict[str, Callable[[torch.Size, bool], float]]:
    """Family -> bytes of a weight of a shape, which is an embedding or not."""
    averaged = 4 if config.optim == "schedule_free_sgd" else 8
    return {
        "native": lambda shape, apart: _native(config, shape, apart),
        "adam_mini": lambda shape, _: 4 * shape.numel() + (4 * shape[0] if len(shape) > 1 else 4),
        "muon": lambda shape, apart: (4 if len(shape) == 2 and not apart else 8) * shape.numel(),
        "lomo": lambda *_: 0,
        "adalomo": lambda shape, _: _factored(shape),
        "schedule_free": lambda shape, _: averaged * shape.numel(),
    }


def _native(config: RunConfig, shape: torch.Size, is_embedding: bool) -> float:
    name = config.optim
    if name == "adafactor":
        return _factored(shape)
    if name == "sgd":
        return 4 * shape.numel() if float(optim_settings(config).get("momentum", 0)) else 0
    if "8bit" in name or "4bit" in name:
        is_exact = shape.numel() < _BLOCKS_FROM or (is_embedding and "torch" not in name)
        name = re.sub("_[48]bit", "_32bit", name) if is_exact else name
    return next(cost for pattern, cost in _NATIVE if re.fullmatch(pattern, name)) * shape.numel()


def _plain(base: str) -> Callable[[torch.Size], float]:
    return _factored if base == "adafactor" else lambda shape: 8 * shape.numel()


def _factored(shape: torch.Size) -> float:
    """A row and a column of second moments."""
    return 4 * (shape[0] + shape[1]) if len(shape) > 1 else 4 * shape.numel()


def _low_rank(group: dict[str, Any], *, factored: bool) -> Callable[[torch.Size], float]:
    """Moments in the small space, and the projection into it."""

    def each(shape: torch.Size) -> float:
        rows, columns = shape
        kind = group["proj_type"]
        longer, shorter = max(rows, columns), min(rows, columns)
        rank = min(group["rank"], shorter) if group.get("proj") != "random" else group["rank"]
        if kind == "full":
            small, projection = torch.Size([rank, rank]), rank * (rows + columns)
        else:
            kept = {"std": longer, "reverse_std": shorter, "right": rows, "left": columns}[kind]
            small, projection = torch.Size([rank, kept]), rank * (rows + columns - kept)
        return (_factored(small) if factored else 8 * small.numel()) + 4 * projection

    return each


def _badam(config: RunConfig, trained: dict[str, torch.Tensor]) -> int:
    layers: dict[str, int] = {}
    for name, weight in trained.items():
        match = re.match(r".*?\.(\d+)\.", name)
        if match:
            layers[match[1]] = layers.get(match[1], 0) + _share(config, weight.numel())
    return 8 * (sum(layers.values()) if config.badam_mode == "ratio" else max(layers.values(), default=0))


def _share(config: RunConfig, count: int) -> int:
    return share_of(count, config.badam_update_ratio) if config.badam_mode == "ratio" else count


def gradient_bytes(config: RunConfig, model: nn.Module) -> int:
    """Bytes that gradients take at most: of the active block for BAdam, else of every trained weight."""
    if config.use_badam and config.badam_mode == "layer":
        return _badam(config, {n: w for n, w in model.named_parameters() if w.requires_grad}) // 2
    return sum(w.numel() * w.element_size() for w in model.parameters() if w.requires_grad)


def measured_bytes(optimizer: Any) -> int:
    """Bytes of all tensors that a live optimizer holds as states, each storage once."""
    storages: dict[int, int] = {}

    def walk(value: Any) -> None:
        if isinstance(value, torch.Tensor):
            storage = value.untyped_storage()
            storages[storage.data_ptr()] = storage.nbytes()
        elif isinstance(value, dict):
            walk_all(value.values())
        elif isinstance(value, list | tuple):
            walk_all(value)
        elif hasattr(value, "ortho_matrix"):
            walk(value.ortho_matrix)

    def walk_all(values: Iterable[Any]) -> None:
        for value in values:
            walk(value)

    walk_all(optimizer.state.values())
    return sum(storages.values())
