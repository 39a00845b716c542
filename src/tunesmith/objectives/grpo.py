"""Group relative policy optimisation: answers to one prompt are compared with each other; no critic.

GRPO (arXiv 2402.03300) with the variants of DAPO (arXiv 2503.14476) and Dr. GRPO (arXiv 2503.20783) as settings.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

import torch

from tunesmith.objectives.advantages import group_advantages
from tunesmith.objectives.base import REFERENCE_LOGPS, LossOutput, Metrics, Scored
from tunesmith.objectives.clipped import clipped_surrogate, kl_to_reference
from tunesmith.objectives.online import ADVANTAGES, OLD_LOGPS, AnswerColumns, OnlineObjective, Rewarded

if TYPE_CHECKING:
    from tunesmith.config.schema import RunConfig


@dataclass(frozen=True, slots=True)
class GroupSettings:
    """The keys of GRPO's loss.

    Attributes:
        clip_low: how far a token's probability ratio may fall below 1.
        clip_high: how far it may rise above 1 (DAPO takes 0.28 with `clip_low` 0.2).
        beta: weight of the KL divergence to the reference; 0 needs no reference.
        average: `grpo`: the mean over an answer's tokens, then over answers; `dapo`: the mean over all tokens;
            `dr_grpo`: the sum over tokens divided by `longest`, then the mean over answers.
        longest: most tokens that an answer may have.
    """

    clip_low: float = 0.2
    clip_high: float = 0.2
    beta: float = 0.04
    average: str = "grpo"
    longest: int = 1


def token_weights(lengths: torch.Tensor, average: str, longest: int) -> torch.Tensor:
    """What each token of an answer counts, so that the loss sum by answers (by tokens with `dapo`) is the average.

    Args:
        lengths: (S,) tokens of each answer, at least 1.
        average: see `GroupSettings`.
        longest: see `GroupSettings`.

    Returns:
        (S,).
    """
    if average == "grpo":
        return 1 / lengths
    return torch.full_like(lengths, 1 / longest if average == "dr_grpo" else 1.0, dtype=torch.float32)


def grpo_losses(
    logps: torch.Tensor,
    old_logps: torch.Tensor | None,
    reference_logps: torch.Tensor | None,
    advantages: torch.Tensor,
    settings: GroupSettings,
) -> tuple[torch.Tensor, Metrics]:
    """The loss of each of N tokens of answers, before any average, and metrics.

    Args:
        logps: (N,) under the policy, in nats, with gradient.
        old_logps: (N,) under the policy that made the answers; None: it is the policy as it is now.
        reference_logps: (N,) under the reference; None with beta 0.
        advantages: (N,) of the answer that each token belongs to.
        settings: the keys.
    """
    surrogate = clipped_surrogate(
        logps, logps.detach() if old_logps is None else old_logps, advantages, settings.clip_low, settings.clip_high
    )
    losses, count = surrogate.losses, float(logps.shape[0])
    metrics: Metrics = {
        "policy/clipfrac": (surrogate.is_clipped.sum().float(), count),
        "policy/ratio": (surrogate.ratios.sum(), count),
    }
    if reference_logps is not None:
        kl = kl_to_reference(logps, reference_logps)
        losses = losses + settings.beta * kl
        metrics["kl"] = (kl.detach().sum(), count)
    return losses, metrics


class GroupObjective(OnlineObjective):
    """GRPO over groups of answers."""

    def __init__(self, settings: GroupSettings, scale: str = "group", epochs: int = 1) -> None:
        self.settings = settings
        self.scale = scale
        self.epochs = epochs
        self.item = "token" if settings.average == "dapo" else "row"
        self.reference = "logps" if settings.beta else "none"
        if epochs > 1:  # with one update the policy that learns is the one that answered
            self.measures = (OLD_LOGPS, REFERENCE_LOGPS) if settings.beta else (OLD_LOGPS,)

    @classmethod
    def build(cls, config: RunConfig) -> Self:
        """With the keys `grpo_*`."""
        settings = GroupSettings(
            clip_low=config.grpo_clip,
            clip_high=config.grpo_clip if config.grpo_clip_high is None else config.grpo_clip_high,
            beta=config.grpo_beta,
            average=config.grpo_loss,
            longest=config.max_new_tokens,
        )
        built = cls(settings, config.grpo_scale_rewards, config.grpo_epochs)
        built.skips_truncated = config.grpo_mask_truncated
        return built

    def columns(self, answers: Rewarded) -> tuple[list[AnswerColumns], Metrics]:
        """Every token of an answer has the advantage of the answer."""
        rewards = answers.scores.view(-1, answers.group)
        advantages = group_advantages(rewards, self.scale, answers.gather(answers.scores))
        deviations = rewards.std(dim=1)
        prompts = float(len(rewards))
        metrics = {
            "reward/std": (deviations.sum(), prompts),
            "reward/dead_groups": ((deviations == 0).float().sum(), prompts),
        }
        pairs = zip(advantages.flatten(), answers.lengths, strict=True)
        return [{ADVANTAGES: advantage.repeat(length)} for advantage, length in pairs], metrics

    def loss(self, scored: Scored) -> LossOutput:
        """See `Objective.loss`; items are answers, or tokens with `dapo`."""
        known = scored.per_target
        losses, metrics = grpo_losses(
            scored.per_token_logps(),
            known.get(OLD_LOGPS),
            known.get(REFERENCE_LOGPS),
            known[ADVANTAGES],
            self.settings,
        )
        weights = token_weights(scored.lengths(), self.settings.average, self.settings.longest)
        return LossOutput((scored.by_sequence(losses) * weights).sum(), metrics)
