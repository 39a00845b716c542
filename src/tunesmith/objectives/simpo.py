"""SimPO (arXiv 2405.14734): mean log-probabilities of a pair of answers, a margin between them, no reference model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Self

import torch
from torch.nn import functional as F  # noqa: N812 - the field's name for it

from tunesmith.objectives.base import LossOutput, PairObjective, Scored, weighted

if TYPE_CHECKING:
    from tunesmith.config.schema import RunConfig


def simpo_loss(chosen: torch.Tensor, rejected: torch.Tensor, beta: float, gamma: float) -> torch.Tensor:
    """-log sigma(beta (c - r) - gamma), equation 6.

    Args:
        chosen: (R,) mean log-probability of a token of the chosen answers, nats.
        rejected: (R,) the same of the rejected answers.
        beta: scale of the difference.
        gamma: what the scaled difference should exceed.
    """
    return -F.logsigmoid(beta * (chosen - rejected) - gamma)


class SimpleObjective(PairObjective):
    """Sum over pairs of the SimPO loss."""

    def __init__(self, beta: float = 0.1, gamma: float = 0.5, ftx: float = 0.0) -> None:
        self.beta, self.gamma, self.ftx = beta, gamma, ftx

    @classmethod
    def build(cls, config: RunConfig) -> Self:
        """With `pref_beta`, `simpo_gamma` and `pref_ftx`."""
        return cls(config.pref_beta, config.simpo_gamma, config.pref_ftx)

    def loss(self, scored: Scored) -> LossOutput:
        """See `Objective.loss`; rewards are beta times mean log-probabilities."""
        mean_logps = (scored.by_sequence(scored.per_token_logps()) / scored.lengths()).view(-1, 2)
        losses = simpo_loss(mean_logps[:, 0], mean_logps[:, 1], self.beta, self.gamma)
        weights = scored.per_row["weight"]
        metrics = self.pair_metrics(self.beta * mean_logps, mean_logps, scored)
        if self.ftx:
            losses = losses - self.ftx * mean_logps[:, 0]
            metrics |= weighted({"sft_loss": -mean_logps[:, 0]}, weights)
        return LossOutput((losses * weights).sum(), metrics)
