"""What PPO and GRPO share: the clipped surrogate of a policy's own answers and estimates of how far it has moved.

Not here: where advantages come from (ppo.py, grpo.py) and how answers are made (training/rollout.py).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch


@dataclass(frozen=True, slots=True)
class Surrogate:
    """The clipped policy loss of N tokens.

    Attributes:
        losses: (N,) loss of each token, with gradient.
        ratios: (N,) p_policy / p_old, without gradient.
        is_clipped: (N,) whether the clip took the gradient away.
    """

    losses: torch.Tensor
    ratios: torch.Tensor
    is_clipped: torch.Tensor


def clipped_surrogate(
    logps: torch.Tensor,
    old_logps: torch.Tensor,
    advantages: torch.Tensor,
    low: float,
    high: float,
) -> Surrogate:
    """-min(r A, clip(r, 1 - low, 1 + high) A) for each token (PPO, arXiv 1707.06347, eq. 7).

    Args:
        logps: (N,) log-probabilities of the sampled tokens under the policy, in nats, with gradient.
        old_logps: (N,) under the policy that made them.
        advantages: (N,).
        low: how far the ratio may fall below 1.
        high: how far it may rise above 1; above `low` it is DAPO's clip-higher (arXiv 2503.14476).
    """
    ratios = (logps - old_logps).exp()
    plain, clipped = ratios * advantages, ratios.clamp(1 - low, 1 + high) * advantages
    return Surrogate(-torch.minimum(plain, clipped), ratios.detach(), (clipped < plain).detach())


def kl_to_reference(logps: torch.Tensor, reference_logps: torch.Tensor) -> torch.Tensor:
    """An estimate of KL(policy || reference) for each token that is never negative and right on average.

    exp(d) - d - 1 with d = log p_reference - log p_policy ("k3", Schulman, "Approximating KL divergence", 2020).

    Args:
        logps: (N,) of sampled tokens, in nats.
        reference_logps: (N,).

    Returns:
        (N,) nats, with the gradient of `logps`.
    """
    difference = reference_logps - logps
    return difference.exp() - difference - 1
