"""From rewards to advantages: by a critic's estimates (GAE, PPO) or by comparison within a group (GRPO)."""

from __future__ import annotations

import torch

EPSILON = 1e-8
"""Added to variances and deviations, so that equal numbers divide by something."""


def generalized_advantages(
    rewards: torch.Tensor, values: torch.Tensor, gamma: float, lam: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Generalized advantage estimation over one answer (arXiv 1506.02438, eq. 16).

    Args:
        rewards: (T,) reward of each token.
        values: (T,) the critic's estimate before each token; after the last one nothing is to come.
        gamma: discount of what comes later.
        lam: 0 trusts the critic, 1 the rewards.

    Returns:
        Advantages (T,) and returns (T,), what the critic should have said.
    """
    following = torch.cat([values[1:], values.new_zeros(1)])
    deltas = rewards + gamma * following - values
    advantages = torch.empty_like(deltas)
    running = deltas.new_zeros(())
    for place in range(len(deltas) - 1, -1, -1):
        running = deltas[place] + gamma * lam * running
        advantages[place] = running
    return advantages, advantages + values


def whiten(numbers: torch.Tensor, of: torch.Tensor | None = None, *, shift_mean: bool = True) -> torch.Tensor:
    """Scales to variance 1 and, unless told otherwise, mean 0.

    Args:
        numbers: (N,).
        of: (M,) all numbers that are trained on together, on all processes; None: these.
        shift_mean: False keeps the mean where it was.
    """
    known = numbers if of is None else of
    mean, variance = known.mean(), known.var(unbiased=False)
    scaled = (numbers - mean) * torch.rsqrt(variance + EPSILON)
    return scaled if shift_mean else scaled + mean


def group_advantages(rewards: torch.Tensor, scale: str, of: torch.Tensor | None = None) -> torch.Tensor:
    """How much better each answer is than the others to its prompt (GRPO, arXiv 2402.03300, section 4.1.2).

    Args:
        rewards: (P, G) rewards of G answers to each of P prompts.
        scale: `group` divides by the deviation within the group; `batch` by that of all rewards of the step; `none`
            leaves differences as they are (Dr. GRPO, arXiv 2503.20783).
        of: all rewards of the step, on all processes; None: these.

    Returns:
        (P, G); all zero in a group whose rewards are equal.
    """
    centred = rewards - rewards.mean(dim=1, keepdim=True)
    if scale == "none":
        return centred
    deviation = rewards.std(dim=1, keepdim=True) if scale == "group" else (rewards if of is None else of).std()
    return centred / (deviation + 1e-4)
