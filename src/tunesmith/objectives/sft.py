"""Supervised fine-tuning: the cross-entropy of the trained tokens."""

from __future__ import annotations

import torch

from tunesmith.objectives.base import LossOutput
from tunesmith.objectives.logprobs import Head, cross_entropy_sum


class SupervisedObjective:
    """Sum of -log p(token) over trained tokens, in nats."""

    example_kind = "conversation"

    def loss(
        self, hidden: torch.Tensor, head: Head, targets: torch.Tensor, token_weights: torch.Tensor | None = None
    ) -> LossOutput:
        """See `TokenObjective.loss`; `accuracy` is the share of trained tokens that arg-max gets right."""
        loss_sum, correct = cross_entropy_sum(hidden, head, targets, token_weights)
        return LossOutput(loss_sum, {"accuracy": (correct, targets.shape[0])})
