"""GRPO's loss against numbers worked by hand; averages; limit cases."""

from __future__ import annotations

import pytest
import torch

from tunesmith.objectives.grpo import GroupSettings, answer_weights, grpo_loss, n_items


def test_loss_by_hand() -> None:
    """Two answers of 1 and 2 tokens, advantages 1 and -1, ratios 1 everywhere, no reference.

    Surrogates: -1; 1, 1. Mean over tokens, then answers: (-1 + 1) / 2 = 0. Over all tokens: (-1 + 1 + 1) / 3 = 1/3.
    Sums over 4 tokens, then answers: (-1/4 + 2/4) / 2 = 1/8.
    """
    logps, advantages = torch.log(torch.tensor([0.5, 0.2, 0.9])), torch.tensor([1.0, -1, -1])
    expected = {"grpo": 0.0, "dapo": 1 / 3, "dr_grpo": 1 / 8}
    for average, value in expected.items():
        settings = GroupSettings(average=average, longest=4, beta=0.0)
        first, second = answer_weights([1, 2], average, 4)
        found = grpo_loss(logps, None, None, advantages, torch.tensor([first, second, second]), settings)
        assert found.loss_sum.item() / n_items([1, 2], average) == pytest.approx(value, abs=1e-6)


def test_kl_is_added_with_its_weight() -> None:
    """Reference twice as likely at one token: KL 1 - log 2 = 0.3069; with beta 0.5 and advantage 0 that is all."""
    settings = GroupSettings(beta=0.5)
    found = grpo_loss(
        torch.log(torch.tensor([0.25])), None, torch.log(torch.tensor([0.5])), torch.zeros(1), torch.ones(1), settings
    )
    assert found.loss_sum.item() == pytest.approx(0.5 * 0.306853, abs=1e-6)
    assert found.metrics["kl"][0].item() == pytest.approx(0.306853, abs=1e-6)


def test_policy_equal_to_reference_and_to_itself() -> None:
    logps = torch.randn(7).requires_grad_()
    same = logps.detach()
    found = grpo_loss(logps, same, same, torch.zeros(7), torch.ones(7), GroupSettings())
    assert found.loss_sum.item() == 0
    assert found.metrics["kl"][0].item() == 0
    assert found.metrics["policy/ratio"][0].item() == 7
    assert found.metrics["policy/clipfrac"][0].item() == 0


def test_without_variance_in_the_rewards_nothing_moves() -> None:
    logps = torch.randn(4).requires_grad_()
    grpo_loss(logps, None, None, torch.zeros(4), torch.ones(4), GroupSettings(beta=0.0)).loss_sum.backward()
    assert (logps.grad == 0).all()
