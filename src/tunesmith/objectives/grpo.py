"""Group relative policy optimisation: answers to one prompt are compared with each other; no critic.

GRPO (arXiv 2402.03300) with the variants of DAPO (arXiv 2503.14476) and Dr. GRPO (arXiv 2503.20783) as settings.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from tunesmith.objectives.base import LossOutput
from tunesmith.objectives.clipped import clipped_surrogate, kl_to_reference


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


def answer_weights(lengths: Sequence[int], average: str, longest: int) -> list[float]:
    """What each token of an answer counts, so that the sum over all tokens, divided by `n_items`, is the average.

    Args:
        lengths: tokens of each answer, at least 1.
        average: see `GroupSettings`.
        longest: see `GroupSettings`.
    """
    if average == "grpo":
        return [1 / length for length in lengths]
    return [1 / longest if average == "dr_grpo" else 1.0] * len(lengths)


def n_items(lengths: Sequence[int], average: str) -> int:
    """What the loss sum of these answers is divided by: tokens (dapo) or answers."""
    return sum(lengths) if average == "dapo" else len(lengths)


def grpo_loss(
    logps: torch.Tensor,
    old_logps: torch.Tensor | None,
    reference_logps: torch.Tensor | None,
    advantages: torch.Tensor,
    weights: torch.Tensor,
    settings: GroupSettings,
) -> LossOutput:
    """The loss sum of N tokens of answers.

    Args:
        logps: (N,) under the policy, in nats, with gradient.
        old_logps: (N,) under the policy that made the answers; None: it is the policy as it is now.
        reference_logps: (N,) under the reference; None with beta 0.
        advantages: (N,) of the answer that each token belongs to.
        weights: (N,) from `answer_weights`.
        settings: the keys.
    """
    surrogate = clipped_surrogate(
        logps, logps.detach() if old_logps is None else old_logps, advantages, settings.clip_low, settings.clip_high
    )
    losses = surrogate.losses
    count = logps.shape[0]
    metrics = {
        "policy/clipfrac": (surrogate.is_clipped.sum().float(), count),
        "policy/ratio": (surrogate.ratios.sum(), count),
    }
    if reference_logps is not None:
        kl = kl_to_reference(logps, reference_logps)
        losses = losses + settings.beta * kl
        metrics["kl"] = (kl.detach().sum(), count)
    return LossOutput((losses * weights).sum(), metrics)
