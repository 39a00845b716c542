"""Adam-mini (arXiv 2406.16793): Adam with one second moment a block of weights. The update is the package's.

Blocks follow the weights' names; this file gives the package names that say what a weight is in this very model: heads
of the real size, and rows for LoRA's matrices, whose names alone would pass for queries and keys.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from tunesmith.core.optional import require

if TYPE_CHECKING:
    from tunesmith.config.schema import RunConfig

_HEADS = ("q_proj", "k_proj")
_ROWS = "mlp"


def adam_mini(config: RunConfig, trainer: Any) -> torch.optim.Optimizer:
    """Adam-mini over the trained weights.

    Raises:
        MissingPackageError: adam-mini is not installed.
    """
    package = require("adam_mini", "adam-mini", "use_adam_mini")
    args, model = trainer.args, trainer.model
    text = model.config.get_text_config()
    heads: int = text.num_attention_heads
    size: int = getattr(text, "head_dim", None) or text.hidden_size // heads
    decaying = set(trainer.get_decay_parameter_names(model))
    optimizer: torch.optim.Optimizer = package.Adam_mini(
        list(_named(model, size * text.hidden_size, decaying)),
        lr=args.learning_rate,
        betas=(args.adam_beta1, args.adam_beta2),
        eps=args.adam_epsilon,
        weight_decay=args.weight_decay,
        dim=text.hidden_size,
        n_heads=heads,
        n_kv_heads=None,
        verbose=False,
    )
    optimizer.head_numel = size * text.hidden_size
    return optimizer


def _named(model: nn.Module, head: int, decaying: set[str]) -> Iterator[tuple[str, nn.Parameter]]:
    """Trained weights under names that say how they are cut: by heads, by rows, by number, or whole."""
    for index, (name, weight) in enumerate(model.named_parameters()):
        if not weight.requires_grad:
            continue
        leaf = name.split(".")[-2] if "." in name else name
        if name.endswith("bias"):
            kind = "bias"
        elif weight.dim() < 2:
            kind = "norm" if name not in decaying else "vector"
        elif leaf in _HEADS and weight.numel() % head == 0:
            kind = leaf
        else:
            kind = _ROWS
        yield f"{kind}.{index}", weight
