"""Chunked cross-entropy against torch's own, and against numbers worked by hand."""

import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from tunesmith.objectives import logprobs
from tunesmith.objectives.logprobs import cross_entropy_sum, per_token_logps


def _problem(
    bias: bool, n: int = 37, dtype: torch.dtype = torch.float64
) -> tuple[torch.Tensor, nn.Linear, torch.Tensor]:
    torch.manual_seed(1)
    head = nn.Linear(8, 23, bias=bias, dtype=dtype)
    return torch.randn(n, 8, dtype=dtype, requires_grad=True), head, torch.randint(0, 23, (n,))


def test_two_tokens_by_hand() -> None:
    """Head = identity on 2 dimensions, hidden (0, ln 3): p = (1/4, 3/4).

    -ln(1/4) - ln(3/4) = ln 4 + ln(4/3) = ln(16/3).
    """
    head = nn.Linear(2, 2, bias=False)
    with torch.no_grad():
        head.weight.copy_(torch.eye(2))
    hidden = torch.tensor([[0.0, math.log(3.0)]] * 2, requires_grad=True)
    loss, correct = cross_entropy_sum(hidden, head, torch.tensor([0, 1]))
    assert loss.item() == pytest.approx(math.log(16 / 3), rel=1e-6)
    assert correct.item() == 1
    loss.backward()
    # d nll / d logits = p - onehot
    assert torch.allclose(hidden.grad, torch.tensor([[-0.75, 0.75], [0.25, -0.25]]), atol=1e-6)


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("chunk", [1, 16, 1000])
def test_equals_torch_in_value_and_every_gradient(
    bias: bool, weighted: bool, chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logprobs, "chunk_tokens", lambda _: chunk)
    hidden, head, targets = _problem(bias, dtype=torch.float32)
    weights = torch.rand(len(targets)) if weighted else None
    loss, _ = cross_entropy_sum(hidden, head, targets, weights)
    (loss * 0.37).backward()
    ours = [hidden.grad, *(p.grad for p in head.parameters())]
    hidden2, head2, _ = _problem(bias, dtype=torch.float32)
    nll = F.cross_entropy(head2(hidden2), targets, reduction="none")
    plain = (nll * weights).sum() if weights is not None else nll.sum()
    (plain * 0.37).backward()
    theirs = [hidden2.grad, *(p.grad for p in head2.parameters())]
    assert loss.item() == pytest.approx(plain.item(), rel=1e-5)
    for a, b in zip(ours, theirs, strict=True):
        assert torch.allclose(a, b, atol=1e-5)


def test_a_head_that_is_no_linear_takes_the_recomputing_path() -> None:
    hidden, head, targets = _problem(bias=True, dtype=torch.float32)
    wrapped = nn.Sequential(head, nn.Tanh())
    loss, correct = cross_entropy_sum(hidden, wrapped, targets)
    loss.backward()
    hidden2 = hidden.detach().clone().requires_grad_()
    plain = F.cross_entropy(wrapped(hidden2), targets, reduction="sum")
    plain.backward()
    assert loss.item() == pytest.approx(plain.item(), rel=1e-5)
    assert torch.allclose(hidden.grad, hidden2.grad, atol=1e-5)
    assert correct.item() == (wrapped(hidden2).argmax(-1) == targets).sum().item()


def test_a_frozen_head_gets_no_gradient_and_no_graph_is_kept_without_grad() -> None:
    hidden, head, targets = _problem(bias=False, dtype=torch.float32)
    head.requires_grad_(False)
    loss, _ = cross_entropy_sum(hidden, head, targets)
    loss.backward()
    assert head.weight.grad is None
    assert hidden.grad is not None
    with torch.no_grad():
        quiet, _ = cross_entropy_sum(hidden, head, targets)
    assert not quiet.requires_grad
    assert quiet.item() == pytest.approx(loss.item())


def test_per_token_logps_match_log_softmax_and_flow_back() -> None:
    hidden, head, targets = _problem(bias=True, dtype=torch.float32)
    ours = per_token_logps(hidden, head, targets)
    expected = head(hidden).log_softmax(-1).gather(1, targets[:, None]).squeeze(1)
    assert torch.allclose(ours, expected, atol=1e-6)
    grads = torch.autograd.grad((ours * torch.arange(len(targets))).sum(), hidden)
    wanted = torch.autograd.grad((expected * torch.arange(len(targets))).sum(), hidden)
    assert torch.allclose(grads[0], wanted[0], atol=1e-4)
    assert per_token_logps(hidden[:0], head, targets[:0]).shape == (0,)
