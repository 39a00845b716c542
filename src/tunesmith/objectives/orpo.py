"""ORPO (arXiv 2403.07691): supervised fine-tuning on the chosen answer and an odds ratio against the rejected one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Self

import torch
from torch.nn import functional as F  # noqa: N812 - the field's name for it

from tunesmith.objectives.base import LossOutput, PairObjective, Scored, weighted

if TYPE_CHECKING:
    from tunesmith.config.schema import RunConfig


def log_odds(mean_logps: torch.Tensor) -> torch.Tensor:
    """log(p / (1 - p)) of answers whose log p is the mean over their tokens (equation 4), any shape, nats."""
    return mean_logps - torch.log(-torch.expm1(mean_logps))


def odds_ratio_loss(chosen: torch.Tensor, rejected: torch.Tensor) -> torch.Tensor:
    """-log sigma of the log odds ratio (equation 7).

    Args:
        chosen: (R,) mean log-probability of a token of the chosen answers, below 0.
        rejected: (R,) the same of the rejected answers.
    """
    return -F.logsigmoid(log_odds(chosen) - log_odds(rejected))


class OddsRatioObjective(PairObjective):
    """Sum over pairs of sft_loss + beta * odds_ratio_loss (equation 6); there is no reference model."""

    def __init__(self, beta: float = 0.1, ftx: float = 0.0) -> None:
        self.beta, self.ftx = beta, ftx

    @classmethod
    def build(cls, config: RunConfig) -> Self:
        """With `pref_beta` and `pref_ftx`."""
        return cls(config.pref_beta, config.pref_ftx)

    def loss(self, scored: Scored) -> LossOutput:
        """See `Objective.loss`; rewards are beta times mean log-probabilities."""
        mean_logps = (scored.by_sequence(scored.per_token_logps()) / scored.lengths()).view(-1, 2)
        sft = -mean_logps[:, 0]
        odds = odds_ratio_loss(mean_logps[:, 0], mean_logps[:, 1])
        losses = (1 + self.ftx) * sft + self.beta * odds
        weights = scored.per_row["weight"]
        metrics = self.pair_metrics(self.beta * mean_logps, mean_logps, scored)
        metrics |= weighted({"sft_loss": sft, "odds_ratio_loss": odds}, weights)
        return LossOutput((losses * weights).sum(), metrics)
