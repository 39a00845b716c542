"""Advantages against numbers worked by hand."""

from __future__ import annotations

import pytest
import torch

from tunesmith.objectives.advantages import generalized_advantages, group_advantages, whiten


def test_generalized_advantages_by_hand() -> None:
    """Three tokens, gamma 0.5, lambda 0.8, rewards (0, 0, 2), values (1, 2, 4).

    deltas: 0 + 0.5*2 - 1 = 0; 0 + 0.5*4 - 2 = 0; 2 + 0 - 4 = -2.
    From the end: A3 = -2; A2 = 0 + 0.4*(-2) = -0.8; A1 = 0 + 0.4*(-0.8) = -0.32. Returns are A + V.
    """
    advantages, returns = generalized_advantages(torch.tensor([0.0, 0, 2]), torch.tensor([1.0, 2, 4]), 0.5, 0.8)
    torch.testing.assert_close(advantages, torch.tensor([-0.32, -0.8, -2.0]))
    torch.testing.assert_close(returns, torch.tensor([0.68, 1.2, 2.0]))


def test_lambda_one_gives_rewards_to_go_minus_values() -> None:
    rewards, values = torch.randn(9), torch.randn(9)
    advantages, returns = generalized_advantages(rewards, values, 1.0, 1.0)
    to_go = rewards.flip(0).cumsum(0).flip(0)
    torch.testing.assert_close(returns, to_go)
    torch.testing.assert_close(advantages, to_go - values)


def test_lambda_zero_looks_one_token_ahead() -> None:
    rewards, values = torch.randn(5), torch.randn(5)
    advantages, _ = generalized_advantages(rewards, values, 0.9, 0.0)
    torch.testing.assert_close(advantages, rewards + 0.9 * torch.cat([values[1:], torch.zeros(1)]) - values)


def test_whiten() -> None:
    numbers = torch.tensor([1.0, 2, 3, 6])  # mean 3, variance (4 + 1 + 0 + 9) / 4 = 3.5
    torch.testing.assert_close(whiten(numbers), (numbers - 3) / 3.5**0.5)
    torch.testing.assert_close(whiten(numbers, shift_mean=False), (numbers - 3) / 3.5**0.5 + 3)
    assert torch.isfinite(whiten(torch.ones(4))).all()


def test_group_advantages_by_hand() -> None:
    """Rewards (0, 1, 2) have mean 1 and deviation sqrt((1 + 0 + 1) / 2) = 1; equal rewards teach nothing."""
    rewards = torch.tensor([[0.0, 1, 2], [5, 5, 5]])
    expected = torch.tensor([[-1.0, 0, 1], [0, 0, 0]])
    torch.testing.assert_close(group_advantages(rewards, "none"), expected)
    torch.testing.assert_close(group_advantages(rewards, "group"), expected / 1.0001)
    # of all six: mean 3, squares 9 + 4 + 1 + 4 + 4 + 4 = 26, deviation sqrt(26 / 5)
    torch.testing.assert_close(group_advantages(rewards, "batch"), expected / ((26 / 5) ** 0.5 + 1e-4))


@pytest.mark.parametrize("scale", ["group", "batch", "none"])
def test_a_constant_added_to_all_rewards_changes_nothing(scale: str) -> None:
    rewards = torch.rand(3, 4, dtype=torch.float64)
    torch.testing.assert_close(group_advantages(rewards, scale), group_advantages(rewards + 7, scale))
