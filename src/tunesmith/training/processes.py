"""What the processes of a run tell each other of weights: where they start from, and the sum of their gradients.

DistributedDataParallel is not used: it watches one `forward`, while a loss here runs parts of a model (hidden states,
the head on trained positions, a value head), and processes may have different numbers of micro-batches in a step.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import torch
from torch import nn

PIECE_MB = 25
"""Megabytes of gradients that are sent at once, where `ddp_bucket_cap_mb` says nothing."""


def start_alike(model: nn.Module) -> None:
    """Gives all processes the trained weights of the first one."""
    with torch.no_grad():
        for weight in _trained(model):
            torch.distributed.broadcast(weight.data, src=0)


def sum_gradients(model: nn.Module, piece_bytes: int) -> None:
    """Replaces gradients by their sums over all processes; a weight without one in any of them stays without.

    Args:
        model: the same in all processes.
        piece_bytes: gradients are sent in pieces of about this size.
    """
    weights = list(_trained(model))
    if not weights:
        return
    device = weights[0].device
    has_one = torch.tensor([weight.grad is not None for weight in weights], dtype=torch.uint8, device=device)
    torch.distributed.all_reduce(has_one, op=torch.distributed.ReduceOp.MAX)
    for weight, is_there in zip(weights, has_one.tolist(), strict=True):
        if is_there and weight.grad is None:
            weight.grad = torch.zeros_like(weight)
    for piece in _pieces([weight.grad for weight in weights if weight.grad is not None], piece_bytes):
        line = torch.cat([gradient.reshape(-1) for gradient in piece])
        torch.distributed.all_reduce(line)
        for gradient, part in zip(piece, line.split([gradient.numel() for gradient in piece]), strict=True):
            gradient.copy_(part.view_as(gradient))


def _trained(model: nn.Module) -> Iterator[nn.Parameter]:
    return (weight for weight in model.parameters() if weight.requires_grad)


def _pieces(gradients: Iterable[torch.Tensor], piece_bytes: int) -> Iterator[list[torch.Tensor]]:
    """Neighbours of one format and device, as many as fit."""
    piece: list[torch.Tensor] = []
    size = 0
    for gradient in gradients:
        is_other = bool(piece) and (gradient.dtype, gradient.device) != (piece[0].dtype, piece[0].device)
        if piece and (is_other or size + gradient.nbytes > piece_bytes):
            yield piece
            piece, size = [], 0
        piece.append(gradient)
        size += gradient.nbytes
    if piece:
        yield piece
