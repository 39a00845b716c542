"""Proximal policy optimisation for language models: rewards with a KL penalty, a critic, two clipped losses.

PPO (arXiv 1707.06347) as Ziegler et al. (arXiv 1909.08593) put it to language models.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Self

import torch

from tunesmith.objectives.advantages import generalized_advantages, whiten
from tunesmith.objectives.base import REFERENCE_LOGPS, LossOutput, Metrics, Scored
from tunesmith.objectives.clipped import clipped_surrogate
from tunesmith.objectives.online import (
    ADVANTAGES,
    OLD_LOGPS,
    OLD_VALUES,
    RETURNS,
    AnswerColumns,
    OnlineObjective,
    Rewarded,
)

if TYPE_CHECKING:
    from tunesmith.config.schema import RunConfig


@dataclass(frozen=True, slots=True)
class ProximalSettings:
    """What users of PPO know, with the values that the field takes for language models.

    Attributes:
        clip: how far a token's probability ratio may leave 1.
        value_clip: how far the critic may leave its old estimate.
        value_weight: of the critic's loss.
        gamma: discount of later rewards.
        lam: of generalized advantage estimation.
    """

    clip: float = 0.2
    value_clip: float = 0.2
    value_weight: float = 0.1
    gamma: float = 1.0
    lam: float = 0.95


@dataclass(frozen=True, slots=True)
class CriticTokens:
    """What the critic says of N tokens.

    Attributes:
        values: (N,) its estimates, with gradient.
        old_values: (N,) its estimates when the answers were made.
        returns: (N,) what it should have said.
    """

    values: torch.Tensor
    old_values: torch.Tensor
    returns: torch.Tensor

    def losses(self, clip: float) -> torch.Tensor:
        """(N,) squared errors, halved; the larger one of the estimate and of what the clip leaves of it."""
        near = torch.clamp(self.values, self.old_values - clip, self.old_values + clip)
        return 0.5 * torch.maximum((self.values - self.returns) ** 2, (near - self.returns) ** 2)


def token_rewards(score: float, logps: torch.Tensor, reference_logps: torch.Tensor, kl_weight: float) -> torch.Tensor:
    """The reward of each token of an answer: the score at its end, less a penalty for leaving the reference.

    Args:
        score: of the whole answer.
        logps: (T,) under the policy that made it, in nats.
        reference_logps: (T,).
        kl_weight: of the penalty log p_policy - log p_reference.

    Returns:
        (T,).
    """
    rewards = -kl_weight * (logps - reference_logps)
    if len(rewards):
        rewards[-1] += score
    return rewards


def ppo_loss(
    logps: torch.Tensor,
    old_logps: torch.Tensor,
    advantages: torch.Tensor,
    critic: CriticTokens,
    settings: ProximalSettings,
) -> LossOutput:
    """The loss sum of N tokens of answers: policy and critic.

    Args:
        logps: (N,) under the policy, in nats, with gradient.
        old_logps: (N,) under the policy that made the answers.
        advantages: (N,).
        critic: its part.
        settings: clips and weights.
    """
    surrogate = clipped_surrogate(logps, old_logps, advantages, settings.clip, settings.clip)
    value_losses = critic.losses(settings.value_clip)
    count = logps.shape[0]
    metrics = {
        "policy/clipfrac": (surrogate.is_clipped.sum().float(), count),
        "policy/ratio": (surrogate.ratios.sum(), count),
        "value/loss": (value_losses.detach().sum(), count),
    }
    return LossOutput((surrogate.losses + settings.value_weight * value_losses).sum(), metrics)


@dataclass(slots=True)
class AdaptiveKL:
    """The weight of the KL penalty, steered towards a target (arXiv 1909.08593, section 2.2).

    Attributes:
        weight: now.
        target: KL of a whole answer that is aimed at, in nats.
        horizon: answers over which the weight may change by a factor of about e^0.2.
    """

    target: float
    weight: float = 0.2
    horizon: int = 10_000

    def update(self, kl: float, count: int) -> None:
        """Moves the weight.

        Args:
            kl: mean over answers of the sum over tokens of log p_policy - log p_reference.
            count: answers that were made.
        """
        error = min(max(kl / self.target - 1, -0.2), 0.2)
        self.weight *= 1 + error * count / self.horizon


@dataclass(slots=True)
class RunningMoments:
    """Mean and deviation of all scores so far, for `ppo_score_norm` (Chan et al., parallel variance).

    Attributes:
        count: scores seen.
        mean: of them.
        squares: sum of squared distances from the mean.
    """

    count: int = 0
    mean: float = 0.0
    squares: float = 0.0

    def update(self, scores: list[float]) -> None:
        """Takes more scores."""
        if not scores:
            return
        mean = math.fsum(scores) / len(scores)
        squares = math.fsum((score - mean) ** 2 for score in scores)
        total = self.count + len(scores)
        difference = mean - self.mean
        self.squares += squares + difference**2 * self.count * len(scores) / total
        self.mean += difference * len(scores) / total
        self.count = total

    def normalize(self, scores: list[float]) -> list[float]:
        """Scores less the mean, by the deviation; as they are while all were equal."""
        deviation = math.sqrt(self.squares / (self.count - 1)) if self.count > 1 else 0.0
        return [(score - self.mean) / deviation if deviation > 0 else score - self.mean for score in scores]


class ProximalObjective(OnlineObjective):
    """PPO over answers, with a value head on the policy's own hidden states."""

    reference = "logps"
    needs_value_head = True
    measures = (OLD_LOGPS, REFERENCE_LOGPS, OLD_VALUES)

    def __init__(
        self,
        settings: ProximalSettings,
        steer: AdaptiveKL,
        *,
        epochs: int = 4,
        normalizes_scores: bool = False,
        whitens_rewards: bool = False,
    ) -> None:
        self.settings = settings
        self.steer = steer
        self.epochs = epochs
        self.moments = RunningMoments() if normalizes_scores else None
        self.whitens_rewards = whitens_rewards

    @classmethod
    def build(cls, config: RunConfig) -> Self:
        """With the keys `ppo_*`."""
        return cls(
            ProximalSettings(),
            AdaptiveKL(config.ppo_target, config.ppo_kl_weight),
            epochs=config.ppo_epochs,
            normalizes_scores=config.ppo_score_norm,
            whitens_rewards=config.ppo_whiten_rewards,
        )

    def columns(self, answers: Rewarded) -> tuple[list[AnswerColumns], Metrics]:
        """Rewards of tokens, then advantages and returns; the weight of the KL penalty moves afterwards."""
        measured = answers.columns
        kl = torch.stack([(one[OLD_LOGPS] - one[REFERENCE_LOGPS]).sum() for one in measured])
        scores = self._normalized(answers)
        rewards = [
            token_rewards(score, one[OLD_LOGPS], one[REFERENCE_LOGPS], self.steer.weight)
            for score, one in zip(scores, measured, strict=True)
        ]
        if self.whitens_rewards:
            every = answers.gather(torch.cat(rewards))
            rewards = [whiten(one, every, shift_mean=False) for one in rewards]
        pairs = [
            generalized_advantages(reward, one[OLD_VALUES], self.settings.gamma, self.settings.lam)
            for reward, one in zip(rewards, measured, strict=True)
        ]
        every = answers.gather(torch.cat([advantages for advantages, _ in pairs]))
        found = [{ADVANTAGES: whiten(advantages, every), RETURNS: returns} for advantages, returns in pairs]
        metrics = {
            "kl": (kl.sum(), float(len(kl))),
            "kl_weight": (torch.tensor(self.steer.weight * len(kl)), float(len(kl))),
        }
        all_kl = answers.gather(kl)
        self.steer.update(float(all_kl.mean()), len(all_kl))
        return found, metrics

    def _normalized(self, answers: Rewarded) -> list[float]:
        scores: list[float] = answers.scores.tolist()
        if self.moments is None:
            return scores
        self.moments.update(answers.gather(answers.scores).tolist())
        return self.moments.normalize(scores)

    def loss(self, scored: Scored) -> LossOutput:
        """See `Objective.loss`; items are tokens."""
        known = scored.per_target
        if scored.value_head is None:
            raise AssertionError("PPO needs a value head")
        critic = CriticTokens(scored.value_head(scored.hidden), known[OLD_VALUES], known[RETURNS])
        return ppo_loss(scored.per_token_logps(), known[OLD_LOGPS], known[ADVANTAGES], critic, self.settings)

    def state(self) -> dict[str, Any]:
        """The weight of the KL penalty and the moments of scores."""
        return {"kl_weight": self.steer.weight, "moments": asdict(self.moments) if self.moments else None}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Takes what `state` gave."""
        self.steer.weight = float(state["kl_weight"])
        if self.moments is not None and state["moments"]:
            self.moments = RunningMoments(**state["moments"])
