"""GRPO's loss against numbers worked by hand; averages; limit cases."""

from __future__ import annotations

import pytest
import torch

from tunesmith.objectives.grpo import GroupSettings, grpo_losses, token_weights


def test_loss_by_hand() -> None:
    """Two answers of 1 and 2 tokens, advantages 1 and -1, ratios 1 everywhere, no reference.

    Surrogates: -1; 1, 1. Mean over tokens, then answers: (-1 + 1) / 2 = 0. Over all tokens: (-1 + 1 + 1) / 3 = 1/3.
    Sums over 4 tokens, then answers: (-1/4 + 2/4) / 2 = 1/8.
    """
    logps, advantages = torch.log(torch.tensor([0.5, 0.2, 0.9])), torch.tensor([1.0, -1, -1])
    expected = {"grpo": 0.0, "dapo": 1 / 3, "dr_grpo": 1 / 8}
    for average, value in expected.items():
        settings = GroupSettings(average=average, longest=4, beta=0.0)
        first, second = token_weights(torch.tensor([1, 2]), average, 4)
        losses, _ = grpo_losses(logps, None, None, advantages, settings)
        total = (losses * torch.stack([first, second, second])).sum()
        n_items = 3 if average == "dapo" else 2
        assert total.item() / n_items == pytest.approx(value, abs=1e-6)


def test_kl_is_added_with_its_weight() -> None:
    """Reference twice as likely at one token: KL 1 - log 2 = 0.3069; with beta 0.5 and advantage 0 that is all."""
    settings = GroupSettings(beta=0.5)
    logps, reference = torch.log(torch.tensor([0.25])), torch.log(torch.tensor([0.5]))
    losses, metrics = grpo_losses(logps, None, reference, torch.zeros(1), settings)
    assert losses.item() == pytest.approx(0.5 * 0.306853, abs=1e-6)
    assert metrics["kl"][0].item() == pytest.approx(0.306853, abs=1e-6)


def test_policy_equal_to_reference_and_to_itself() -> None:
    logps = torch.randn(7).requires_grad_()
    same = logps.detach()
    losses, metrics = grpo_losses(logps, same, same, torch.zeros(7), GroupSettings())
    assert (losses == 0).all()
    assert metrics["kl"][0].item() == 0
    assert metrics["policy/ratio"][0].item() == 7
    assert metrics["policy/clipfrac"][0].item() == 0


def test_without_variance_in_the_rewards_nothing_moves() -> None:
    logps = torch.randn(4).requires_grad_()
    losses, _ = grpo_losses(logps, None, None, torch.zeros(4), GroupSettings(beta=0.0))
    losses.sum().backward()
    assert (logps.grad == 0).all()
