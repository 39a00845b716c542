"""peft (seen in 0.21.2) makes a dropout layer for OFT and never calls it, so `module_dropout` would do nothing."""

from __future__ import annotations

from typing import Any

import torch


def drop_rotations(model: Any, share: float) -> None:
    """Lets each block of each rotation be the identity with probability `share` while training.

    Args:
        model: a PeftModel with an OFT adapter.
        share: `module_dropout`.
    """
    if not share:
        return
    for module in model.modules():
        if type(module).__name__ == "OFTRotationModule":
            module._cayley_batch = _dropped(module, module._cayley_batch, share)


def _dropped(module: Any, rotations: Any, share: float) -> Any:
    def blocks(*args: Any, **kwargs: Any) -> torch.Tensor:
        found = rotations(*args, **kwargs)  # (blocks, size, size)
        if not module.training:
            return found
        drops = torch.rand(found.shape[0], 1, 1, device=found.device) < share
        identity = torch.eye(found.shape[-1], dtype=found.dtype, device=found.device)
        return torch.where(drops, identity, found)

    return blocks
