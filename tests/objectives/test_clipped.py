"""The clipped surrogate and the KL estimate against numbers worked by hand, limit cases and gradients."""

from __future__ import annotations

import math

import torch

from tunesmith.objectives.clipped import clipped_surrogate, kl_to_reference


def test_surrogate_by_hand() -> None:
    """Ratios 1.5, 1.5, 0.5, 0.5 with advantages 1, -1, 1, -1 and clip 0.2.

    r A and clip(r) A: (1.5, 1.2), (-1.5, -1.2), (0.5, 0.8), (-0.5, -0.8); the smaller one counts, with a minus:
    -1.2 (clipped), 1.5, -0.5, 0.8 (clipped).
    """
    logps = torch.tensor([1.5, 1.5, 0.5, 0.5]).log().requires_grad_()
    found = clipped_surrogate(logps, torch.zeros(4), torch.tensor([1.0, -1, 1, -1]), 0.2, 0.2)
    torch.testing.assert_close(found.losses, torch.tensor([-1.2, 1.5, -0.5, 0.8]))
    assert found.is_clipped.tolist() == [True, False, False, True]
    found.losses.sum().backward()
    # d(-r A)/d logp = -r A where not clipped, 0 where clipped
    torch.testing.assert_close(logps.grad, torch.tensor([0.0, 1.5, -0.5, 0.0]))


def test_clip_higher_lets_ratios_rise_further() -> None:
    found = clipped_surrogate(torch.tensor([1.25]).log(), torch.zeros(1), torch.ones(1), 0.2, 0.28)
    torch.testing.assert_close(found.losses, torch.tensor([-1.25]))
    assert not found.is_clipped.any()


def test_the_policy_that_made_the_answers_has_ratio_one_and_the_gradient_of_reinforce() -> None:
    logps = torch.randn(6).requires_grad_()
    advantages = torch.randn(6)
    found = clipped_surrogate(logps, logps.detach(), advantages, 0.2, 0.2)
    assert (found.ratios == 1).all()
    found.losses.sum().backward()
    torch.testing.assert_close(logps.grad, -advantages)


def test_kl_is_zero_at_the_reference_and_right_by_hand() -> None:
    logps = torch.tensor([0.5, 0.5]).log()
    assert (kl_to_reference(logps, logps) == 0).all()
    # reference twice as likely: d = log 2, 2 - log 2 - 1
    torch.testing.assert_close(kl_to_reference(logps[:1], torch.zeros(1)), torch.tensor([1 - math.log(2)]))


def test_kl_is_right_on_average() -> None:
    """Summed over all tokens with the policy's probabilities the estimate is the divergence itself."""
    policy, reference = torch.randn(2, 11, dtype=torch.float64).log_softmax(-1)
    exact = (policy.exp() * (policy - reference)).sum()
    torch.testing.assert_close((policy.exp() * kl_to_reference(policy, reference)).sum(), exact)


def test_gradients_are_those_of_finite_differences() -> None:
    logps = (torch.randn(5, dtype=torch.float64) * 0.05).requires_grad_()
    reference, advantages = torch.randn(2, 5, dtype=torch.float64)

    def loss(numbers: torch.Tensor) -> torch.Tensor:
        surrogate = clipped_surrogate(numbers, torch.zeros_like(numbers), advantages, 0.2, 0.2)
        return (surrogate.losses + kl_to_reference(numbers, reference)).sum()

    assert torch.autograd.gradcheck(loss, [logps])
