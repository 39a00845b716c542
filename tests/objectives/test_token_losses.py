"""Variants of the token loss: by hand, against torch, through both kinds of heads."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from tunesmith.objectives import logprobs, sft
from tunesmith.objectives.base import Scored
from tunesmith.objectives.logprobs import cross_entropy_sum, per_token_kl, per_token_logps
from tunesmith.objectives.pt import TextObjective
from tunesmith.objectives.sft import SupervisedObjective, TokenLoss


def problem(seed: int = 1, n: int = 21, vocab: int = 23) -> tuple[torch.Tensor, nn.Linear, torch.Tensor]:
    torch.manual_seed(seed)
    head = nn.Linear(8, vocab)
    return torch.randn(n, 8, requires_grad=True), head, torch.randint(0, vocab, (n,))


def wrapped(head: nn.Linear) -> Callable[[torch.Tensor], torch.Tensor]:
    """The same head as something the fast path does not know."""
    return lambda hidden: head(hidden)


def test_dft_by_hand() -> None:
    """p = (1/4, 3/4), target 1: 3/4 ln(4/3), and the factor has no gradient: d/d logits = 3/4 (p - onehot)."""
    logits = torch.tensor([[0.0, math.log(3.0)]], requires_grad=True)
    head = nn.Linear(2, 2, bias=False)
    with torch.no_grad():
        head.weight.copy_(torch.eye(2))
    for one in (head, wrapped(head)):
        logits.grad = None
        output = SupervisedObjective(TokenLoss("dft")).loss(Scored(logits, one, torch.tensor([1])))
        assert output.loss_sum.item() == pytest.approx(0.75 * math.log(4 / 3), rel=1e-6)
        output.loss_sum.backward()
        assert logits.grad is not None
        assert logits.grad[0].tolist() == pytest.approx([0.1875, -0.1875], rel=1e-5)


def test_eaft_by_hand() -> None:
    """A uniform distribution over 25 tokens has full entropy among its top 20: factor 1; a certain one factor 0.

    Two tokens (K = 2) at 1/4 and 3/4: H = ln 4 - 3/4 ln 3, over ln 2; squared with alpha 2.
    """
    uniform = torch.zeros(1, 25)
    assert sft.top_entropy(uniform, 1.0).item() == pytest.approx(1.0)
    certain = torch.zeros(1, 25).index_fill(1, torch.tensor([3]), 100.0)
    assert sft.top_entropy(certain, 1.0).item() == pytest.approx(0.0, abs=1e-6)
    two = torch.tensor([[0.0, math.log(3.0)]])
    share = (math.log(4) - 0.75 * math.log(3)) / math.log(2)
    assert sft.top_entropy(two, 1.0).item() == pytest.approx(share, rel=1e-5)
    assert sft.top_entropy(two, 2.0).item() == pytest.approx(share**2, rel=1e-5)
    assert sft.top_entropy(two, 0.0).item() == 1


@pytest.mark.parametrize("kind", ["dft", "eaft"])
@pytest.mark.parametrize("smoothing", [0.0, 0.2])
@pytest.mark.parametrize("chunk", [4, 1000])
def test_weighed_and_smoothed_losses_equal_torch_in_value_and_gradients(
    kind: str, smoothing: float, chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logprobs, "chunk_tokens", lambda _: chunk)
    objective = SupervisedObjective(TokenLoss(kind, label_smoothing=smoothing))
    weights = torch.rand(21)
    for through in (lambda head: head, wrapped):
        hidden, head, targets = problem()
        loss = objective.loss(Scored(hidden, through(head), targets, weights)).loss_sum
        loss.backward()
        hidden2, head2, _ = problem()
        logits = head2(hidden2)
        factor = sft.top_entropy(logits, 1.0) if kind == "eaft" else sft.own_probability(logits, targets)
        nll = F.cross_entropy(logits, targets, reduction="none", label_smoothing=smoothing)
        plain = (nll * factor.detach() * weights).sum()
        plain.backward()
        assert loss.item() == pytest.approx(plain.item(), rel=1e-5)
        for ours, theirs in zip((hidden, *head.parameters()), (hidden2, *head2.parameters()), strict=True):
            assert ours.grad is not None
            assert torch.allclose(ours.grad, theirs.grad, atol=1e-5)


def test_smoothing_spreads_the_target() -> None:
    """Uniform logits: any target costs ln V, smoothed or not; a wrong answer costs less, by the mean logit."""
    head = nn.Identity()
    for smoothing in (0.0, 0.5):
        loss, _ = cross_entropy_sum(torch.zeros(1, 4), head, torch.tensor([1]), label_smoothing=smoothing)
        assert loss.item() == pytest.approx(math.log(4))
    wrong = torch.tensor([[10.0, 0.0, 0.0, 0.0]])
    hard, _ = cross_entropy_sum(wrong, head, torch.tensor([1]))
    soft, _ = cross_entropy_sum(wrong, head, torch.tensor([1]), label_smoothing=0.4)
    assert hard.item() - soft.item() == pytest.approx(0.4 * 2.5, rel=1e-4)
    text = TextObjective(0.4).loss(Scored(wrong, head, torch.tensor([1])))
    assert text.loss_sum.item() == pytest.approx(soft.item())


def test_perplexity_is_e_to_the_loss() -> None:
    assert TextObjective().derived({"loss": math.log(7.0)}) == {"perplexity": pytest.approx(7.0)}


@pytest.mark.parametrize("trains_head", [False, True])
@pytest.mark.parametrize("chunk", [4, 1000])
def test_logps_of_both_paths_equal_log_softmax(trains_head: bool, chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logprobs, "chunk_tokens", lambda _: chunk)
    coefficients = torch.randn(21)
    hidden, head, targets = problem()
    plain = F.log_softmax(head(hidden), dim=-1).gather(1, targets[:, None]).squeeze(1)
    (plain * coefficients).sum().backward()
    for through in (lambda head: head, wrapped):
        hidden2, head2, _ = problem()
        head2.requires_grad_(trains_head)
        found = per_token_logps(hidden2, through(head2), targets)
        assert torch.allclose(found, plain, atol=1e-6)
        (found * coefficients).sum().backward()
        assert hidden2.grad is not None
        assert torch.allclose(hidden2.grad, hidden.grad, atol=1e-5)
        for ours, theirs in zip(head2.parameters(), head.parameters(), strict=True):
            assert (ours.grad is not None) == trains_head
            assert ours.grad is None or torch.allclose(ours.grad, theirs.grad, atol=1e-5)
    assert per_token_logps(torch.zeros(0, 8), head, torch.zeros(0, dtype=torch.long)).shape == (0,)


def test_half_precision_states_meet_a_full_precision_head() -> None:
    hidden, head, targets = problem()
    plain = per_token_logps(hidden.detach(), head, targets)
    half = hidden.detach().bfloat16().requires_grad_()
    found = per_token_logps(half, head, targets)
    found.sum().backward()
    assert found.dtype == torch.float32
    assert torch.allclose(found, plain, atol=0.05)
    assert half.grad is not None
    assert half.grad.dtype == torch.bfloat16
    assert head.weight.grad is not None
    assert head.weight.grad.dtype == torch.float32


def test_kl_by_hand() -> None:
    """p = (1/4, 3/4), q = (1/2, 1/2): 1/4 ln(1/2) + 3/4 ln(3/2); of a distribution to itself 0."""
    p, q = torch.tensor([[0.0, math.log(3.0)]]), torch.zeros(1, 2)
    head = nn.Identity()
    assert per_token_kl(p, head, q, head).item() == pytest.approx(0.25 * math.log(0.5) + 0.75 * math.log(1.5), rel=1e-5)
    assert per_token_kl(p, head, p, head).item() == 0


def test_asft_is_dft_and_the_kl(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logprobs, "chunk_tokens", lambda _: 4)
    hidden, head, targets = problem()
    other, other_head, _ = problem(seed=2)
    objective = SupervisedObjective(TokenLoss("asft", asft_alpha=0.3))
    assert objective.reference == "scored"
    reference: Any = Scored(other.detach(), other_head, targets)
    output = objective.loss(Scored(hidden, head, targets, reference=reference))
    output.loss_sum.backward()
    assert other_head.weight.grad is None
    hidden2 = hidden.detach().clone().requires_grad_()
    logits = head(hidden2)
    nll = F.cross_entropy(logits, targets, reduction="none")
    kl = F.kl_div(other_head(other).log_softmax(-1), logits.log_softmax(-1), reduction="none", log_target=True).sum(-1)
    plain = (nll * (-nll).exp().detach()).sum() + 0.3 * kl.sum()
    plain.backward()
    assert output.loss_sum.item() == pytest.approx(plain.item(), rel=1e-5)
    assert hidden.grad is not None
    assert torch.allclose(hidden.grad, hidden2.grad, atol=1e-5)
    total, count = output.metrics["kl"]
    assert float(total) / count == pytest.approx(kl.mean().item(), rel=1e-5)
