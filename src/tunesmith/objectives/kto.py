"""KTO (arXiv 2402.01306): single answers marked good or bad, each held against the KL to a reference."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Self

import torch

from tunesmith.objectives.base import REFERENCE_LOGPS, LossOutput, Metrics, Objective, Scored, weighted

if TYPE_CHECKING:
    from tunesmith.config.schema import RunConfig


def kto_loss(ratios: torch.Tensor, is_desirable: torch.Tensor, kl: torch.Tensor, beta: float) -> torch.Tensor:
    """1 - sigma(beta (r - z)) of a good answer, 1 - sigma(beta (z - r)) of a bad one; without the two weights.

    Args:
        ratios: (R,) log-ratio r of each answer to the reference, nats.
        is_desirable: (R,) bool.
        kl: z, an estimate of the KL of the policy to the reference, at least 0, a constant for the gradient.
        beta: strength of the pull to the reference.
    """
    gain = torch.where(is_desirable, ratios - kl, kl - ratios)
    return 1 - torch.sigmoid(beta * gain)


class FeedbackObjective(Objective):
    """Sum over judged answers of the KTO loss.

    A row's first sequence is the judged answer, its second the answer to another prompt. The KL is the mean log-ratio
    of the latter over the whole step, so it does not depend on how the step is cut.
    """

    example_kind = "feedback"
    item = "row"
    reference = "logps"
    parts = (0,)
    baseline_parts = (1,)

    def __init__(self, beta: float = 0.1, good_weight: float = 1.0, bad_weight: float = 1.0, ftx: float = 0.0) -> None:
        self.beta, self.good_weight, self.bad_weight, self.ftx = beta, good_weight, bad_weight, ftx

    @classmethod
    def build(cls, config: RunConfig) -> Self:
        """With `pref_beta`, `pref_ftx`, `kto_chosen_weight` and `kto_rejected_weight`."""
        return cls(config.pref_beta, config.kto_chosen_weight, config.kto_rejected_weight, config.pref_ftx)

    def baseline_sum(self, scored: Scored) -> tuple[torch.Tensor, float]:
        """The sum of the log-ratios of mismatched answers."""
        weights = scored.per_row["weight"]
        ratios = scored.by_sequence(scored.per_token_logps() - scored.per_target[REFERENCE_LOGPS])
        return (ratios * weights).sum(), float(weights.sum())

    def loss(self, scored: Scored) -> LossOutput:
        """See `Objective.loss`; rewards are beta times log-ratios, `chosen` are good answers, `rejected` bad ones."""
        if scored.baseline is None:
            raise AssertionError("KTO needs the mean log-ratio of mismatched answers")
        is_good, weights = scored.per_row["desirable"], scored.per_row["weight"]
        kl = scored.baseline.clamp(min=0)
        logps = scored.by_sequence(scored.per_token_logps())
        ratios = logps - scored.by_sequence(scored.per_target[REFERENCE_LOGPS])
        factors = torch.where(is_good, self.good_weight, self.bad_weight)
        losses = factors * kto_loss(ratios, is_good, kl, self.beta)
        metrics: Metrics = {"kl": (kl * weights.sum(), float(weights.sum()))}
        for name, chosen in (("chosen", weights * is_good), ("rejected", weights * ~is_good)):
            metrics |= weighted({f"rewards/{name}": self.beta * ratios, f"logps/{name}": logps}, chosen)
        if self.ftx:
            sft = -logps / scored.lengths()
            losses = losses + self.ftx * sft * is_good
            metrics |= weighted({"sft_loss": sft}, weights * is_good)
        return LossOutput((losses * weights).sum(), metrics)

    def derived(self, means: Mapping[str, float]) -> dict[str, float]:
        """`rewards/margins`, the mean of good answers over that of bad ones."""
        if not {"rewards/chosen", "rewards/rejected"} <= means.keys():
            return {}
        return {"rewards/margins": means["rewards/chosen"] - means["rewards/rejected"]}
