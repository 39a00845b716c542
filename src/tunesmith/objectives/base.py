"""What an objective is: which examples it needs, what counts as an item, and a loss that is a sum."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

import torch

from tunesmith.objectives.logprobs import Head


@dataclass(frozen=True, slots=True)
class LossOutput:
    """The loss of one micro-batch.

    Attributes:
        loss_sum: scalar with gradient, a SUM over items; the trainer divides once by the items of the whole step.
        metrics: name -> (sum, count), added up over micro-batches and divided once.
    """

    loss_sum: torch.Tensor
    metrics: dict[str, tuple[torch.Tensor, int]] = field(default_factory=dict)


class TokenObjective(Protocol):
    """An objective over single trained tokens (sft, pt)."""

    example_kind: str
    """`conversation` or `text`."""

    def loss(
        self, hidden: torch.Tensor, head: Head, targets: torch.Tensor, token_weights: torch.Tensor | None = None
    ) -> LossOutput:
        """The loss sum over tokens.

        Args:
            hidden: (N, H) hidden states that predict the trained tokens.
            head: maps hidden states to logits.
            targets: (N,) the trained tokens; N is the number of items.
            token_weights: (N,) factor on each token's loss, which then counts as that many items; None: all are 1.
        """
        ...


OBJECTIVES = {"sft": "tunesmith.objectives.sft:SupervisedObjective"}
"""stage -> class."""
