"""Log-probabilities and cross-entropy from hidden states, in chunks, so that memory does not grow with the vocabulary.

A language model's logits of T tokens are T x V floats; with V = 150,000 they outweigh the model. Here a few hundred
tokens at a time meet the head, and only what the backward pass needs is kept: the gradient of the hidden states, which
is known in the forward pass already because the loss is a plain sum.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.nn import functional as F  # noqa: N812 - the field's name for it
from torch.utils.checkpoint import checkpoint

CHUNK_ELEMENTS = 2**24
"""Logits alive at once (64 MiB in fp32); fewer tokens a chunk leave matrix units idle, measured on two cores."""

Head = Callable[[torch.Tensor], torch.Tensor]
"""Hidden states (N, H) to logits (N, V)."""


def chunk_tokens(vocab_size: int) -> int:
    """Tokens a chunk such that its logits hold about CHUNK_ELEMENTS numbers, at least 32."""
    return max(32, CHUNK_ELEMENTS // max(vocab_size, 1))


class _LinearCrossEntropy(torch.autograd.Function):
    """Sum of cross-entropies of a linear head; gradients are made chunk by chunk in the forward pass."""

    @staticmethod
    def forward(
        ctx: Any,
        hidden: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor | None,
        targets: torch.Tensor,
        token_weights: torch.Tensor | None,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        needs_hidden, needs_weight, needs_bias = ctx.needs_input_grad[:3]
        grad_hidden = torch.empty_like(hidden) if needs_hidden else None
        grad_weight = torch.zeros_like(weight, dtype=torch.float32) if needs_weight else None
        grad_bias = torch.zeros_like(bias, dtype=torch.float32) if bias is not None and needs_bias else None
        loss = torch.zeros((), dtype=torch.float32, device=hidden.device)
        correct = torch.zeros((), dtype=torch.long, device=hidden.device)
        size = chunk_tokens(weight.shape[0])
        for start in range(0, hidden.shape[0], size):
            rows = slice(start, start + size)
            chunk, target = hidden[rows], targets[rows]
            logits = F.linear(chunk, weight, bias).float()
            # One exponential serves loss and gradient, written over the logits: (N, V) is touched as little as can be.
            top = logits.amax(dim=-1, keepdim=True)
            picked = logits.gather(1, target[:, None])
            exps = logits.sub_(top).exp_()
            z = exps.sum(dim=-1, keepdim=True)
            nll = (z.log() - (picked - top)).squeeze(1)
            correct += (picked == top).sum()
            scale = token_weights[rows] if token_weights is not None else None
            loss += (nll * scale).sum() if scale is not None else nll.sum()
            if not (needs_hidden or needs_weight or needs_bias):
                continue
            # d(nll)/d(logits) = softmax - onehot
            grad = exps.div_(z)
            grad.scatter_add_(1, target[:, None], torch.full_like(picked, -1.0))
            if scale is not None:
                grad.mul_(scale[:, None])
            grad = grad.to(hidden.dtype)
            if grad_hidden is not None:
                torch.mm(grad, weight.to(hidden.dtype), out=grad_hidden[rows])
            if grad_weight is not None:
                grad_weight.add_(grad.T @ chunk)
            if grad_bias is not None:
                grad_bias.add_(grad.sum(dim=0))
        ctx.save_for_backward(grad_hidden, grad_weight, grad_bias)
        ctx.dtypes = (weight.dtype, bias.dtype if bias is not None else None)
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
    hidden: torch.Tensor, head: Head, targets: torch.Tensor, scale: torch.Tensor | None
) -> tuple[torch.Tensor, torch.Tensor]:
    logits = head(hidden).float()
    nll = F.cross_entropy(logits, targets, reduction="none")
    return (nll * scale).sum() if scale is not None else nll.sum(), (logits.argmax(dim=-1) == targets).sum()


def _is_plain_linear(head: Any) -> bool:
    """Whether calling the head is nothing but its matrix product: no subclass (LoRA, quantised), no hooks."""
    return type(head) is torch.nn.Linear and not head._forward_hooks and not head._forward_pre_hooks


def cross_entropy_sum(
    hidden: torch.Tensor,
    head: Head,
    targets: torch.Tensor,
    token_weights: torch.Tensor | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Sum over tokens of -log p(target).

    A plain `nn.Linear` head takes the fast path (three matrix products for a frozen head, no logits kept); any other
    head is called chunk by chunk and computed again in the backward pass.

    Args:
        hidden: (N, H) last hidden states at the positions that predict.
        head: maps (n, H) to (n, V) logits.
        targets: (N,) token ids.
        token_weights: (N,) factor on each token's loss; no gradient flows into it.

    Returns:
        The loss sum in nats, fp32 scalar with gradient; and how many arg-max predictions were right.
    """
    if _is_plain_linear(head):
        linear: Any = head
        loss, correct = _LinearCrossEntropy.apply(hidden, linear.weight, linear.bias, targets, token_weights)
        return loss, correct
    loss = torch.zeros((), dtype=torch.float32, device=hidden.device)
    correct = torch.zeros((), dtype=torch.long, device=hidden.device)
    vocab = getattr(head, "out_features", None) or 2**17
    size = chunk_tokens(vocab)
    for start in range(0, hidden.shape[0], size):
        scale = token_weights[start : start + size] if token_weights is not None else None
        arguments = (hidden[start : start + size], head, targets[start : start + size], scale)
        if torch.is_grad_enabled():
            part, right = checkpoint(_head_chunk, *arguments, use_reentrant=False)
        else:
            part, right = _head_chunk(*arguments)
        loss = loss + part
        correct = correct + right
    return loss, correct


def per_token_logps(hidden: torch.Tensor, head: Head, targets: torch.Tensor) -> torch.Tensor:
    """Log p(target) for each token, chunked; logits are computed again in the backward pass.

    Args:
        hidden: (N, H).
        head: maps (n, H) to (n, V) logits.
        targets: (N,) token ids.

    Returns:
        (N,) fp32 log-probabilities in nats.
    """

    def chunk(part: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        return -F.cross_entropy(head(part).float(), target, reduction="none")

    size = chunk_tokens(getattr(head, "out_features", None) or 2**17)
    outputs = []
    for part, target in zip(hidden.split(size), targets.split(size), strict=True):
        outputs.append(
            checkpoint(chunk, part, target, use_reentrant=False) if torch.is_grad_enabled() else chunk(part, target)
        )
    return torch.cat(outputs) if outputs else hidden.new_zeros(0, dtype=torch.float32)
