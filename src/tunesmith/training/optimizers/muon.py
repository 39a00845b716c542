"""Muon for matrices, AdamW for all else, as one optimizer.

Muon (arXiv 2502.16982): momentum, made orthogonal by five Newton-Schulz steps, times 0.2 sqrt(max(rows, columns)), so
that an update is as large as AdamW's and both take the same learning rate. torch.optim.Muon does the arithmetic.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from tunesmith.core.log import get_logger
from tunesmith.models.value_head import value_head_of
from tunesmith.training.optimizers.in_backward import Group, trained_groups

if TYPE_CHECKING:
    from tunesmith.config.schema import RunConfig

logger = get_logger(__name__)


class SeveralOptimizers(torch.optim.Optimizer):
    """Optimizers of different weights that step together.

    Args:
        parts: at least one.
        description: one line for the log.
    """

    def __init__(self, parts: Sequence[torch.optim.Optimizer], description: str) -> None:
        self.parts = list(parts)
        self.description = description
        self.defaults = dict(self.parts[0].defaults)

    @property
    def param_groups(self) -> list[Group]:
        """The groups of all parts."""
        return [group for part in self.parts for group in part.param_groups]

    @property
    def state(self) -> dict[Any, Any]:
        """The states of all parts."""
        return {weight: value for part in self.parts for weight, value in part.state.items()}

    def step(self, closure: Any = None) -> None:
        """Steps all parts."""
        for part in self.parts:
            part.step()

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Frees all gradients."""
        for part in self.parts:
            part.zero_grad(set_to_none)

    def state_dict(self) -> dict[str, Any]:
        """The parts' states in order."""
        return {"parts": [part.state_dict() for part in self.parts]}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Gives each part its state."""
        for part, saved in zip(self.parts, state_dict["parts"], strict=True):
            part.load_state_dict(saved)


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
