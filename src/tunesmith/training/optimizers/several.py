"""Optimizers of different weights as one, and the two groups that weights fall into."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

Group = dict[str, Any]


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
        """The groups of all parts; a scheduler sets their learning rates."""
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


def trained_groups(model: nn.Module, trainer: Any) -> list[Group]:
    """Two groups of trained weights: those that decay and those that do not (norms and biases)."""
    decaying = set(trainer.get_decay_parameter_names(model))
    named = [(name, weight) for name, weight in model.named_parameters() if weight.requires_grad]
    return [
        {"params": [w for name, w in named if name in decaying], "weight_decay": trainer.args.weight_decay},
        {"params": [w for name, w in named if name not in decaying], "weight_decay": 0.0},
    ]
