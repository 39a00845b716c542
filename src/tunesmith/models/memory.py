"""How many tokens fit into one micro-batch: activation bytes are counted on a probe, not guessed."""

from __future__ import annotations

import contextlib
from pathlib import Path

import psutil
import torch
from torch import nn

from tunesmith.core import env
from tunesmith.core.log import get_logger
from tunesmith.models.forward import HiddenForward, MicroBatch
from tunesmith.models.linear import plain_tensors

logger = get_logger(__name__)

PROBE_TOKENS = 48
CPU_TOKENS = 512
"""More tokens at once are no faster on a CPU, whose matrix products are busy from 500 rows on, but cost memory."""
GPU_TOKENS = 16384


def activation_bytes_per_token(model: nn.Module, forward: HiddenForward) -> float:
    """Bytes that the backward pass keeps for one token, counted on a probe of PROBE_TOKENS tokens.

    Args:
        model: the model as it will be trained.
        forward: how it is called.
    """
    held = [part for tensor in (*model.parameters(), *model.buffers()) for part in plain_tensors(tensor)]
    weights = {tensor.untyped_storage().data_ptr() for tensor in held}
    seen: dict[int, int] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        for part in plain_tensors(tensor):
            storage = part.untyped_storage()
            if storage.data_ptr() not in weights:
                seen[storage.data_ptr()] = storage.nbytes()
        kept.append(tensor)  # holds the storage, so that no later one gets the same address
        return tensor

    kept: list[torch.Tensor] = []
    parameter = next(model.parameters())
    ids = torch.zeros(PROBE_TOKENS, dtype=torch.long, device=parameter.device)
    places = torch.arange(PROBE_TOKENS, device=parameter.device)
    batch = MicroBatch(ids, places, (PROBE_TOKENS,), places[:-1], ids[1:])
    with torch.random.fork_rng(devices=[]), torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        output = forward(model, batch)
    del output
    kept.clear()
    return sum(seen.values()) / PROBE_TOKENS


def available_bytes(device: torch.device) -> int:
    """Memory that a process may still take on its device: free memory, or what the container allows if that is less.

    Processes of one run that compute on the CPU share it evenly.
    """
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    free = int(psutil.virtual_memory().available)
    limit, used = Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory.current")
    with contextlib.suppress(OSError, ValueError):  # no container, or no limit ("max")
        free = min(free, int(limit.read_text()) - int(used.read_text()))
    return free // env.local_world_size()


def fitting_tokens(bytes_per_token: float, device: torch.device, reserve: int) -> int:
    """Token budget of a micro-batch: a power of two that fits 70 % of the free memory after `reserve` bytes.

    A power of two, so that small changes of free memory between two starts do not change the arithmetic of a run.
    """
    cap = CPU_TOKENS if device.type == "cpu" else GPU_TOKENS
    room = max(available_bytes(device) - reserve, 0) * 0.7 / max(bytes_per_token, 1.0)
    budget = 64
    while budget * 2 <= min(room, cap):
        budget *= 2
    return budget


def cache_bytes(device: torch.device) -> int:
    """Memory that keys and values may take while answering: a share of what is free now."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return int(free * 0.8)
    return int(psutil.virtual_memory().available * 0.4)
