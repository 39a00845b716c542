"""Supervised fine-tuning: the cross-entropy of the trained tokens."""

from __future__ import annotations

from tunesmith.objectives.base import LossOutput, Objective, Scored
from tunesmith.objectives.logprobs import cross_entropy_sum


class SupervisedObjective(Objective):
    """Sum of -log p(token) over trained tokens, in nats."""

    example_kind = "conversation"

    def loss(self, scored: Scored) -> LossOutput:
        """See `Objective.loss`; `accuracy` is the share of trained tokens that arg-max gets right."""
        loss_sum, correct = cross_entropy_sum(scored.hidden, scored.head, scored.targets, scored.weights)
        return LossOutput(loss_sum, {"accuracy": (correct, scored.targets.shape[0])})
