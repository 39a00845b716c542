"""Log-probabilities and cross-entropy from hidden states, in chunks, so that memory does not grow with the vocabulary.

A language model's logits of T tokens are T x V floats; with V = 150,000 they outweigh the model. Here a few hundred
tokens at a time meet the head, and only what the backward pass needs is kept: the gradient of the hidden states, which
is known in the forward pass already because the loss is a plain sum.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn import functional as F  # noqa: N812 - the field's name for it
from torch.utils.checkpoint import checkpoint

CHUNK_ELEMENTS = 2**24
"""Logits alive at once (64 MiB in fp32); fewer tokens a chunk leave matrix units idle, measured on two cores."""

Head = Callable[[torch.Tensor], torch.Tensor]
"""Hidden states (N, H) to logits (N, V)."""
Weigh = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
"""Logits (n, V) and targets (n,) to a factor (n,) on each token's loss, through which no gradient flows."""


def chunk_tokens(vocab_size: int) -> int:
    """Tokens a chunk such that its logits hold about CHUNK_ELEMENTS numbers, at least 32."""
    return max(32, CHUNK_ELEMENTS // max(vocab_size, 1))


@dataclass(frozen=True, slots=True)
class _Weighing:
    """What a token's loss is multiplied by, and how far its target is spread; see `cross_entropy_sum`."""

    token_weights: torch.Tensor | None = None
    weigh: Weigh | None = None
    smoothing: float = 0.0

    @torch.no_grad()
    def scale(self, rows: slice, logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor | None:
        """The factors of a chunk; None: all are 1."""
        weights = None if self.token_weights is None else self.token_weights[rows]
        if self.weigh is None:
            return weights
        found = self.weigh(logits, targets)
        return found if weights is None else found * weights


class _LinearCrossEntropy(torch.autograd.Function):
    """Sum of cross-entropies of a linear head; gradients are made chunk by chunk in the forward pass."""

    @staticmethod
    def forward(
        ctx: Any,
        hidden: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor | None,
        targets: torch.Tensor,
        weighing: _Weighing,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        smoothing = weighing.smoothing
        needs_hidden, needs_weight, needs_bias = ctx.needs_input_grad[:3]
        grad_hidden = torch.empty_like(hidden) if needs_hidden else None
        grad_weight = torch.zeros_like(weight, dtype=torch.float32) if needs_weight else None
        grad_bias = torch.zeros_like(bias, dtype=torch.float32) if bias is not None and needs_bias else None
        loss = torch.zeros((), dtype=torch.float32, device=hidden.device)
        correct = torch.zeros((), dtype=torch.long, device=hidden.device)
        ctx.dtypes = (weight.dtype, bias.dtype if bias is not None else None)
        size, (own, own_bias) = chunk_tokens(weight.shape[0]), _cast(weight, bias, hidden.dtype)
        for start in range(0, hidden.shape[0], size):
            rows = slice(start, start + size)
            chunk, target = hidden[rows], targets[rows]
            logits = F.linear(chunk, own, own_bias).float()
            scale = weighing.scale(rows, logits, target)
            # One exponential serves loss and gradient, written over the logits: (N, V) is touched as little as can be.
            top = logits.amax(dim=-1, keepdim=True)
            picked = logits.gather(1, target[:, None])
            aim = picked
            if smoothing:
                aim = (1 - smoothing) * picked + smoothing * logits.mean(dim=-1, keepdim=True)
            exps = logits.sub_(top).exp_()
            z = exps.sum(dim=-1, keepdim=True)
            nll = (z.log() - (aim - top)).squeeze(1)
            correct += (picked == top).sum()
            loss += (nll * scale).sum() if scale is not None else nll.sum()
            if not (needs_hidden or needs_weight or needs_bias):
                continue
            # d(nll)/d(logits) = softmax - onehot, smoothed
            grad = exps.div_(z)
            if smoothing:
                grad.sub_(smoothing / grad.shape[1])
            grad.scatter_add_(1, target[:, None], torch.full_like(picked, smoothing - 1.0))
            if scale is not None:
                grad.mul_(scale[:, None])
            grad = grad.to(hidden.dtype)
            if grad_hidden is not None:
                torch.mm(grad, own, out=grad_hidden[rows])
            if grad_weight is not None:
                grad_weight.add_(grad.T @ chunk)
            if grad_bias is not None:
                grad_bias.add_(grad.sum(dim=0))
        ctx.save_for_backward(grad_hidden, grad_weight, grad_bias)
        ctx.mark_non_differentiable(correct)
        return loss, correct

    @staticmethod
    def backward(ctx: Any, grad_loss: torch.Tensor, _: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        grad_hidden, grad_weight, grad_bias = ctx.saved_tensors
        weight_dtype, bias_dtype = ctx.dtypes
        return (
            grad_hidden * grad_loss.to(grad_hidden.dtype) if grad_hidden is not None else None,
            (grad_weight * grad_loss).to(weight_dtype) if grad_weight is not None else None,
            (grad_bias * grad_loss).to(bias_dtype) if grad_bias is not None else None,
            None,
            None,
        )


def _head_chunk(
    hidden: torch.Tensor, head: Head, targets: torch.Tensor, rows: slice, weighing: _Weighing
) -> tuple[torch.Tensor, torch.Tensor]:
    logits = head(hidden).float()
    scale = weighing.scale(rows, logits.detach(), targets)
    nll = F.cross_entropy(logits, targets, reduction="none", label_smoothing=weighing.smoothing)
    return (nll * scale).sum() if scale is not None else nll.sum(), (logits.argmax(dim=-1) == targets).sum()


def _is_plain_linear(head: Any) -> bool:
    """Whether calling the head is nothing but its matrix product: no subclass (LoRA, quantised), no hooks."""
    return type(head) is torch.nn.Linear and not head._forward_hooks and not head._forward_pre_hooks


def cross_entropy_sum(
    hidden: torch.Tensor,
    head: Head,
    targets: torch.Tensor,
    token_weights: torch.Tensor | None = None,
    *,
    weigh: Weigh | None = None,
    label_smoothing: float = 0.0,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Sum over tokens of -log p(target).

    A plain `nn.Linear` head takes the fast path (three matrix products for a frozen head, no logits kept); any other
    head is called chunk by chunk and computed again in the backward pass.

    Args:
        hidden: (N, H) last hidden states at the positions that predict.
        head: maps (n, H) to (n, V) logits.
        targets: (N,) token ids.
        token_weights: (N,) factor on each token's loss; no gradient flows into it.
        weigh: another such factor, made of each chunk's logits.
        label_smoothing: share of the target spread over all tokens.

    Returns:
        The loss sum in nats, fp32 scalar with gradient; and how many arg-max predictions were right.
    """
    weighing = _Weighing(token_weights, weigh, label_smoothing)
    if _is_plain_linear(head):
        linear: Any = head
        loss, correct = _LinearCrossEntropy.apply(_as_autocast(hidden), linear.weight, linear.bias, targets, weighing)
        return loss, correct
    loss = torch.zeros((), dtype=torch.float32, device=hidden.device)
    correct = torch.zeros((), dtype=torch.long, device=hidden.device)
    vocab = getattr(head, "out_features", None) or 2**17
    size = chunk_tokens(vocab)
    for start in range(0, hidden.shape[0], size):
        rows = slice(start, start + size)
        arguments = (hidden[rows], head, targets[rows], rows, weighing)
        if torch.is_grad_enabled():
            part, right = checkpoint(_head_chunk, *arguments, use_reentrant=False)
        else:
            part, right = _head_chunk(*arguments)
        loss = loss + part
        correct = correct + right
    return loss, correct


class _LinearLogps(torch.autograd.Function):
    """Log p(target) of a linear head.

    What the hidden states' gradient needs of the vocabulary, W[target] - E_p[W], is one vector a token and made in the
    forward pass: with a frozen head the logits are not needed again.
    """

    @staticmethod
    def forward(
        ctx: Any, hidden: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, targets: torch.Tensor
    ) -> torch.Tensor:
        needs_hidden, needs_weight, needs_bias = ctx.needs_input_grad[:3]
        slopes = torch.empty_like(hidden) if needs_hidden else None
        logps = torch.empty(hidden.shape[0], dtype=torch.float32, device=hidden.device)
        size, (own, own_bias) = chunk_tokens(weight.shape[0]), _cast(weight, bias, hidden.dtype)
        for start in range(0, hidden.shape[0], size):
            rows = slice(start, start + size)
            logits = F.linear(hidden[rows], own, own_bias).float()
            logps[rows], slope = _logps_and_slope(logits, targets[rows], needs_hidden)
            if slopes is not None:
                torch.mm(slope.to(hidden.dtype), own, out=slopes[rows])
        needs_head = needs_weight or needs_bias
        ctx.save_for_backward(slopes, *((hidden, weight, bias, targets) if needs_head else ()))
        return logps

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        slopes, *rest = ctx.saved_tensors
        grad_hidden = slopes * grad[:, None].to(slopes.dtype) if slopes is not None else None
        if not rest:
            return grad_hidden, None, None, None
        hidden, weight, bias, targets = rest
        grad_weight = torch.zeros_like(weight, dtype=torch.float32)
        grad_bias = torch.zeros_like(bias, dtype=torch.float32) if bias is not None else None
        size, (own, own_bias) = chunk_tokens(weight.shape[0]), _cast(weight, bias, hidden.dtype)
        for start in range(0, hidden.shape[0], size):
            rows = slice(start, start + size)
            logits = F.linear(hidden[rows], own, own_bias).float()
            slope = _logps_and_slope(logits, targets[rows], True)[1].mul_(grad[rows, None])
            grad_weight.add_(slope.to(hidden.dtype).T @ hidden[rows])
            if grad_bias is not None:
                grad_bias.add_(slope.sum(dim=0))
        return (
            grad_hidden,
            grad_weight.to(weight.dtype),
            grad_bias.to(bias.dtype) if grad_bias is not None else None,
            None,
        )


def _as_autocast(hidden: torch.Tensor) -> torch.Tensor:
    """Hidden states in autocast's format, which does not reach products that write into given memory."""
    place = hidden.device.type
    return hidden.to(torch.get_autocast_dtype(place)) if torch.is_autocast_enabled(place) else hidden


def _cast(
    weight: torch.Tensor, bias: torch.Tensor | None, dtype: torch.dtype
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """The head in the dtype of the hidden states, as autocast would have it; the backward pass runs outside of that."""
    return weight.to(dtype), None if bias is None else bias.to(dtype)


def _logps_and_slope(
    logits: torch.Tensor, targets: torch.Tensor, with_slope: bool
) -> tuple[torch.Tensor, torch.Tensor]:
    """(n,) log p(target) and its gradient by the logits, onehot - softmax (n, V), written over them."""
    top = logits.amax(dim=-1, keepdim=True)
    picked = logits.gather(1, targets[:, None]) - top
    exps = logits.sub_(top).exp_()
    z = exps.sum(dim=-1, keepdim=True)
    logps = (picked - z.log()).squeeze(1)
    if not with_slope:
        return logps, exps
    slope = exps.div_(z).neg_()
    return logps, slope.scatter_add_(1, targets[:, None], torch.ones_like(picked))


def per_token_logps(hidden: torch.Tensor, head: Head, targets: torch.Tensor) -> torch.Tensor:
    """Log p(target) for each token, chunked.

    A plain `nn.Linear` head takes the fast path; with any other the logits are computed again in the backward pass.

    Args:
        hidden: (N, H).
        head: maps (n, H) to (n, V) logits.
        targets: (N,) token ids.

    Returns:
        (N,) fp32 log-probabilities in nats.
    """
    if _is_plain_linear(head):
        linear: Any = head
        logps: torch.Tensor = _LinearLogps.apply(_as_autocast(hidden), linear.weight, linear.bias, targets)
        return logps

    def chunk(part: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        return -F.cross_entropy(head(part).float(), target, reduction="none")

    return _chunked(chunk, chunk_tokens(getattr(head, "out_features", None) or 2**17), hidden, targets)


def per_token_kl(hidden: torch.Tensor, head: Head, other: torch.Tensor, other_head: Head) -> torch.Tensor:
    """KL(p || q) of the whole distributions at each position; gradient flows through p alone.

    Args:
        hidden: (N, H) of p.
        head: of p.
        other: (N, H') of q.
        other_head: of q.

    Returns:
        (N,) nats.
    """

    def chunk(part: torch.Tensor, opposite: torch.Tensor) -> torch.Tensor:
        logp = head(part).float().log_softmax(dim=-1)
        with torch.no_grad():
            logq = other_head(opposite).float().log_softmax(dim=-1)
        return (logp.exp() * (logp - logq)).sum(dim=-1)

    return _chunked(chunk, chunk_tokens(getattr(head, "out_features", None) or 2**17), hidden, other)


def _chunked(
    function: Callable[[torch.Tensor, torch.Tensor], torch.Tensor], size: int, left: torch.Tensor, right: torch.Tensor
) -> torch.Tensor:
    """A function of rows, a chunk at a time; nothing of a chunk is kept for the backward pass."""
    outputs = []
    for part, other in zip(left.split(size), right.split(size), strict=True):
        is_kept = torch.is_grad_enabled()
        outputs.append(checkpoint(function, part, other, use_reentrant=False) if is_kept else function(part, other))
    return torch.cat(outputs) if outputs else left.new_zeros(0, dtype=torch.float32)
