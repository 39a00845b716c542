"""Direct preference optimisation against a reference: sigmoid, hinge, IPO and paired KTO losses of pairs of answers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

import torch
from torch.nn import functional as F  # noqa: N812 - the field's name for it

from tunesmith.objectives.base import REFERENCE_LOGPS, LossOutput, PairObjective, Scored, weighted

if TYPE_CHECKING:
    from tunesmith.config.schema import RunConfig


@dataclass(frozen=True, slots=True)
class PreferenceSettings:
    """Settings of the loss; names as in the configuration, without `pref_` and `dpo_`."""

    loss: str = "sigmoid"
    beta: float = 0.1
    ftx: float = 0.0
    label_smoothing: float = 0.0
    ld_alpha: float | None = None
    bco_weight: float = 0.0


def sigmoid_loss(margin: torch.Tensor, beta: float, label_smoothing: float = 0.0) -> torch.Tensor:
    """-log sigma(beta m), equation 7 of DPO (arXiv 2305.18290); with a share of labels taken as wrong: cDPO.

    Args:
        margin: (R,) (log-ratio of the chosen answer) - (log-ratio of the rejected answer), nats.
        beta: strength of the pull to the reference.
        label_smoothing: probability that a pair is marked wrongly (the DPO authors' note on cDPO).

    Returns:
        (R,) losses.
    """
    right, wrong = F.logsigmoid(beta * margin), F.logsigmoid(-beta * margin)
    return -right * (1 - label_smoothing) - wrong * label_smoothing


def hinge_loss(margin: torch.Tensor, beta: float) -> torch.Tensor:
    """max(0, 1 - beta m), the loss of SLiC (arXiv 2305.10425) on log-ratios; shapes as in `sigmoid_loss`."""
    return torch.relu(1 - beta * margin)


def ipo_loss(mean_margin: torch.Tensor, beta: float) -> torch.Tensor:
    """(m - 1 / (2 beta))^2, equation 17 of IPO (arXiv 2310.12036), on log-ratios averaged over tokens.

    The paper sums over tokens; the mean keeps long answers from deciding alone, and is what users of LLaMA-Factory and
    trl have.
    """
    return (mean_margin - 1 / (2 * beta)) ** 2


def kto_pair_loss(
    chosen: torch.Tensor, rejected: torch.Tensor, kl: tuple[torch.Tensor, torch.Tensor], beta: float
) -> torch.Tensor:
    """KTO (arXiv 2402.01306) where good and bad answers come in pairs; the mean of both halves.

    Args:
        chosen: (R,) log-ratios of chosen answers.
        rejected: (R,) log-ratios of rejected answers.
        kl: mean log-ratio of all chosen and of all rejected answers of the step, each at least 0; each answer is held
            against that of the other side.
        beta: strength of the pull to the reference.
    """
    of_chosen, of_rejected = kl
    good = 1 - torch.sigmoid(beta * (chosen - of_rejected))
    bad = 1 - torch.sigmoid(beta * (of_chosen - rejected))
    return (good + bad) / 2


def bco_loss(rewards: torch.Tensor, shift: float) -> torch.Tensor:
    """-log sigma(r_c - shift) - log sigma(-(r_r - shift)): BCO (arXiv 2404.04656), a classifier of single answers.

    Args:
        rewards: (R, 2) of the chosen and the rejected answer.
        shift: running mean of all rewards.
    """
    return -F.logsigmoid(rewards[:, 0] - shift) - F.logsigmoid(shift - rewards[:, 1])


class PreferenceObjective(PairObjective):
    """Sum over pairs of a loss of log-ratios to a reference.

    With `bco_weight` w it is (loss + w * BCO) / (1 + w), as in MPO (arXiv 2411.10442). The shift of BCO is the mean
    reward of all steps before this one: it would be another number for each way to cut the step if it were the step's.
    """

    reference = "logps"

    def __init__(self, settings: PreferenceSettings) -> None:
        self.settings = settings
        self.baseline_parts = (0, 1) if settings.loss == "kto_pair" else None
        self.observes = settings.bco_weight > 0
        self._rewards, self._answers = 0.0, 0.0

    @classmethod
    def build(cls, config: RunConfig) -> Self:
        """With the keys `pref_*` and `dpo_label_smoothing`, `ld_alpha`."""
        return cls(
            PreferenceSettings(
                config.pref_loss,
                config.pref_beta,
                config.pref_ftx,
                config.dpo_label_smoothing,
                config.ld_alpha,
                config.pref_bco_weight,
            )
        )

    def loss(self, scored: Scored) -> LossOutput:
        """See `Objective.loss`; metrics are means over pairs, rewards are beta times log-ratios."""
        settings = self.settings
        logps = scored.per_token_logps()
        policy, ratios = self._ratios(logps, scored)
        losses = self._losses(ratios, scored)
        rewards = settings.beta * ratios
        if settings.bco_weight:
            shift = self._rewards / self._answers if self._answers else 0.0
            losses = (losses + settings.bco_weight * bco_loss(rewards, shift)) / (1 + settings.bco_weight)
        weights = scored.per_row["weight"]
        metrics = self.pair_metrics(rewards, policy, scored)
        if settings.ftx:
            sft = -(scored.by_sequence(logps) / scored.lengths()).view(-1, 2)[:, 0]
            losses = losses + settings.ftx * sft
            metrics |= weighted({"sft_loss": sft}, weights)
        return LossOutput((losses * weights).sum(), metrics)

    def _ratios(self, logps: torch.Tensor, scored: Scored) -> tuple[torch.Tensor, torch.Tensor]:
        """Log-probabilities and log-ratios of the answers, (R, 2) each; of IPO the means over tokens."""
        policy = scored.by_sequence(self._desensitised(logps, scored))
        reference = scored.by_sequence(scored.per_target[REFERENCE_LOGPS])
        if self.settings.loss == "ipo":
            policy, reference = policy / scored.lengths(), reference / scored.lengths()
        return policy.view(-1, 2), (policy - reference).view(-1, 2)

    def _desensitised(self, logps: torch.Tensor, scored: Scored) -> torch.Tensor:
        """LD-DPO (arXiv 2409.06411), policy only: tokens beyond the shorter answer's length count `ld_alpha`."""
        if self.settings.ld_alpha is None or scored.sequence_of is None:
            return logps
        shorter = scored.lengths().view(-1, 2).amin(dim=1).repeat_interleave(2)
        beyond = scored.places() >= shorter[scored.sequence_of]
        return torch.where(beyond, self.settings.ld_alpha * logps, logps)

    def _losses(self, ratios: torch.Tensor, scored: Scored) -> torch.Tensor:
        settings, margin = self.settings, ratios[:, 0] - ratios[:, 1]
        if settings.loss == "hinge":
            return hinge_loss(margin, settings.beta)
        if settings.loss == "ipo":
            return ipo_loss(margin, settings.beta)
        if settings.loss == "kto_pair":
            if scored.baseline is None:
                raise AssertionError("kto_pair needs the mean log-ratios of the step")
            kl = scored.baseline.clamp(min=0)
            return kto_pair_loss(ratios[:, 0], ratios[:, 1], (kl[0], kl[1]), settings.beta)
        return sigmoid_loss(margin, settings.beta, settings.label_smoothing)

    def baseline_sum(self, scored: Scored) -> tuple[torch.Tensor, float]:
        """Sums of the log-ratios of chosen and of rejected answers, shape (2,), and the number of pairs."""
        _, ratios = self._ratios(scored.per_token_logps(), scored)
        weights = scored.per_row["weight"]
        return (ratios * weights[:, None]).sum(dim=0), float(weights.sum())

    def observe(self, metrics: Mapping[str, tuple[float, float]]) -> None:
        """Takes a step's rewards into the mean that BCO shifts by."""
        for name in ("rewards/chosen", "rewards/rejected"):
            total, count = metrics[name]
            self._rewards, self._answers = self._rewards + total, self._answers + count

    def state(self) -> dict[str, Any]:
        """The running mean of rewards."""
        return {"rewards": self._rewards, "answers": self._answers} if self.observes else {}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """See `Objective.load_state`."""
        self._rewards, self._answers = float(state.get("rewards", 0.0)), float(state.get("answers", 0.0))
