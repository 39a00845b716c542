"""Training on plain text: the cross-entropy of every token."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Self

from tunesmith.objectives.base import LossOutput, Objective, Scored
from tunesmith.objectives.logprobs import cross_entropy_sum

if TYPE_CHECKING:
    from tunesmith.config.schema import RunConfig


class TextObjective(Objective):
    """Sum of -log p(token), in nats."""

    example_kind = "text"

    def __init__(self, label_smoothing: float = 0.0) -> None:
        self.label_smoothing = label_smoothing

    @classmethod
    def build(cls, config: RunConfig) -> Self:
        """With `label_smoothing_factor`."""
        return cls(config.label_smoothing_factor)

    def loss(self, scored: Scored) -> LossOutput:
        """See `Objective.loss`; `accuracy` is the share of tokens that arg-max gets right."""
        loss_sum, correct = cross_entropy_sum(
            scored.hidden, scored.head, scored.targets, scored.weights, label_smoothing=self.label_smoothing
        )
        return LossOutput(loss_sum, {"accuracy": (correct, len(scored.targets))})

    def derived(self, means: Mapping[str, float]) -> dict[str, float]:
        """`perplexity`, e to the loss."""
        return {"perplexity": math.exp(min(means["loss"], 700.0))} if "loss" in means else {}
