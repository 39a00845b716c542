"""Direct preference optimisation against a reference: sigmoid, hinge, IPO and paired KTO losses of pairs of answers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

import torch
from torch.nn import functional as F  # noqa: N812 - the field's name for it

from tunesmith.objectives.base import REFERENCE_LOGPS, LossOutput, Metrics, Objective, Scored

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


class PreferenceObjective(Objective):
    """Sum over pairs of a loss of log-ratios to a reference."""

    example_kind = "preference"
    item = "row"
    reference = "logps"

    def __init__(self, settings: PreferenceSettings) -> None:
        self.settings = settings
        self.baseline_parts = (0, 1) if settings.loss == "kto_pair" else None

    @classmethod
    def build(cls, config: RunConfig) -> Self:
        """With the keys `pref_*` and `dpo_label_smoothing`, `ld_alpha`."""
        return cls(
            PreferenceSettings(
                config.pref_loss, config.pref_beta, config.pref_ftx, config.dpo_label_smoothing, config.ld_alpha
            )
        )

    def loss(self, scored: Scored) -> LossOutput:
        """See `Objective.loss`; metrics are means over pairs, rewards are beta times log-ratios."""
        settings, lengths = self.settings, scored.lengths()
        logps = scored.per_token_logps()
        policy = scored.by_sequence(self._desensitised(logps, scored))
        reference = scored.by_sequence(scored.per_target[REFERENCE_LOGPS])
        if settings.loss == "ipo":
            policy, reference = policy / lengths, reference / lengths
        ratios = (policy - reference).view(-1, 2)
        losses = self._losses(ratios, scored)
        weights = scored.per_row["weight"]
        count = float(weights.sum())
        metrics: Metrics = {}
        if settings.ftx:
            sft = -(scored.by_sequence(logps) / lengths).view(-1, 2)[:, 0]
            losses = losses + settings.ftx * sft
            metrics["sft_loss"] = ((sft.detach() * weights).sum(), count)
        rewards = settings.beta * ratios.detach()
        said = policy.detach().view(-1, 2)
        seen = {
            "rewards/chosen": rewards[:, 0],
            "rewards/rejected": rewards[:, 1],
            "rewards/accuracies": (rewards[:, 0] > rewards[:, 1]).float(),
            "rewards/margins": rewards[:, 0] - rewards[:, 1],
            "logps/chosen": said[:, 0],
            "logps/rejected": said[:, 1],
        }
        metrics |= {name: ((values * weights).sum(), count) for name, values in seen.items()}
        return LossOutput((losses * weights).sum(), metrics)

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
        logps = scored.per_token_logps() - scored.per_target[REFERENCE_LOGPS]
        weights = scored.per_row["weight"]
        ratios = scored.by_sequence(logps).view(-1, 2)
        return (ratios * weights[:, None]).sum(dim=0), float(weights.sum())
