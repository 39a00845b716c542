"""PPO's loss, rewards and controllers against numbers worked by hand and limit cases."""

from __future__ import annotations

import statistics

import pytest
import torch

from tunesmith.objectives.ppo import AdaptiveKL, CriticTokens, ProximalSettings, RunningMoments, ppo_loss, token_rewards


def test_rewards_by_hand() -> None:
    """Policy log-probs (-1, -2), reference (-1.5, -1), weight 0.2: penalties 0.1 and -0.2, score 3 at the end."""
    found = token_rewards(3.0, torch.tensor([-1.0, -2]), torch.tensor([-1.5, -1]), 0.2)
    torch.testing.assert_close(found, torch.tensor([-0.1, 3.2]))


def test_loss_by_hand() -> None:
    """One token, ratio 1.5 and advantage 2, clip 0.2: -min(3, 2.4) = -2.4.

    Value 2, was 1, clip 0.2 keeps it at 1.2; return 3: 0.5 max((2 - 3)^2, (1.2 - 3)^2) = 0.5 * 3.24 = 1.62.
    Total -2.4 + 0.1 * 1.62 = -2.238.
    """
    one = torch.ones(1)
    logps, values = torch.tensor([1.5]).log().requires_grad_(), torch.tensor([2.0]).requires_grad_()
    found = ppo_loss(logps, torch.zeros(1), 2 * one, CriticTokens(values, one, 3 * one), ProximalSettings())
    assert found.loss_sum.item() == pytest.approx(-2.238)
    found.loss_sum.backward()
    assert logps.grad.item() == 0  # clipped
    assert values.grad.item() == 0  # clipped


def test_at_the_policy_that_answered_the_gradient_is_reinforce_and_regression() -> None:
    logps, values = torch.randn(6, requires_grad=True), torch.randn(6, requires_grad=True)
    advantages, returns = torch.randn(2, 6)
    found = ppo_loss(
        logps, logps.detach(), advantages, CriticTokens(values, values.detach(), returns), ProximalSettings()
    )
    assert found.metrics["policy/ratio"][0].item() == 6
    assert found.metrics["policy/clipfrac"][0].item() == 0
    found.loss_sum.backward()
    torch.testing.assert_close(logps.grad, -advantages)
    torch.testing.assert_close(values.grad, 0.1 * (values.detach() - returns))


def test_gradients_are_those_of_finite_differences() -> None:
    logps, values = torch.randn(2, 5, dtype=torch.float64).mul(0.05).unbind()
    advantages, returns = torch.randn(2, 5, dtype=torch.float64)

    def loss(policy: torch.Tensor, critic: torch.Tensor) -> torch.Tensor:
        zeros = torch.zeros_like(policy)
        return ppo_loss(policy, zeros, advantages, CriticTokens(critic, zeros, returns), ProximalSettings()).loss_sum

    assert torch.autograd.gradcheck(loss, [logps.requires_grad_(), values.requires_grad_()])


def test_kl_weight_goes_up_and_down_by_at_most_a_fifth_of_its_share() -> None:
    """Target 6, KL 12: error 1 is cut to 0.2; 100 answers of horizon 10000: 0.2 * (1 + 0.2 * 0.01) = 0.2004."""
    steer = AdaptiveKL(target=6.0)
    steer.update(12.0, 100)
    assert steer.weight == pytest.approx(0.2004)
    steer = AdaptiveKL(target=6.0)
    steer.update(5.4, 1000)  # error -0.1
    assert steer.weight == pytest.approx(0.2 * (1 - 0.1 * 0.1))
    steer.update(6.0, 1000)
    assert steer.weight == pytest.approx(0.2 * (1 - 0.1 * 0.1))


def test_moments_of_parts_are_those_of_the_whole() -> None:
    parts = [[1.0, 4.0], [2.5], [], [-3.0, 8.0, 0.5]]
    moments = RunningMoments()
    for part in parts:
        moments.update(part)
    whole = [score for part in parts for score in part]
    assert moments.mean == pytest.approx(statistics.mean(whole))
    assert moments.normalize([moments.mean + statistics.stdev(whole)]) == [pytest.approx(1.0)]
    equal = RunningMoments()
    equal.update([2.0, 2.0])
    assert equal.normalize([2.0]) == [0.0]
