"""Muon for matrices, AdamW for all else, as one optimizer.

Muon (arXiv 2502.16982): momentum, made orthogonal by five Newton-Schulz steps, times 0.2 sqrt(max(rows, columns)), so
that an update is as large as AdamW's and both take the same learning rate. torch.optim.Muon does the arithmetic.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from tunesmith.core.log import get_logger
from tunesmith.models.value_head import value_head_of
from tunesmith.training.optimizers.several import SeveralOptimizers, trained_groups

if TYPE_CHECKING:
    from tunesmith.config.schema import RunConfig

logger = get_logger(__name__)


def muon(config: RunConfig, trainer: Any) -> torch.optim.Optimizer:
    """Muon on trained matrices but embeddings and head, AdamW of torch on the rest."""
    args = trainer.args
    groups = trained_groups(trainer.model, trainer)
    apart = _embeddings(trainer.model)
    matrices, rest = [], []
    for group in groups:
        is_matrix = [weight.dim() == 2 and id(weight) not in apart for weight in group["params"]]
        pairs = list(zip(group["params"], is_matrix, strict=True))
        matrices.append({**group, "params": [weight for weight, yes in pairs if yes]})
        rest.append({**group, "params": [weight for weight, yes in pairs if not yes]})
    matrices = [group for group in matrices if group["params"]]
    rest = [group for group in rest if group["params"]]
    parts: list[torch.optim.Optimizer] = []
    if matrices:
        parts.append(torch.optim.Muon(matrices, lr=args.learning_rate, adjust_lr_fn="match_rms_adamw"))
    if rest:
        settings: dict[str, Any] = {"betas": (args.adam_beta1, args.adam_beta2), "eps": args.adam_epsilon}
        parts.append(torch.optim.AdamW(rest, lr=args.learning_rate, **settings))
    count = sum(len(group["params"]) for group in matrices)
    return SeveralOptimizers(parts, f"Muon on {count} matrices, AdamW on the rest")


def _embeddings(model: nn.Module) -> set[int]:
    """Ids of the weights that map tokens to vectors and back, or to values; LoRA's parts of them included."""
    found = set()
    for module in (model.get_input_embeddings(), model.get_output_embeddings(), value_head_of(model)):
        found |= {id(weight) for weight in module.parameters()} if module is not None else set()
    return found
