"""Groups of weights with learning rates of their own: LoRA+ (arXiv 2402.12354)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from tunesmith.core.log import get_logger

if TYPE_CHECKING:
    from tunesmith.config.schema import RunConfig

logger = get_logger(__name__)


def lora_plus_rate(name: str, weight: torch.Tensor, config: RunConfig) -> float:
    """The learning rate of one weight: A as usual, B and vectors times the ratio, matrices on an embedding their own.

    Args:
        name: as in `named_parameters`.
        weight: it.
        config: `learning_rate`, `loraplus_lr_ratio`, `loraplus_lr_embedding`.
    """
    if "lora_embedding_" in name:
        return config.loraplus_lr_embedding
    is_raised = "lora_B" in name or weight.dim() == 1
    return config.learning_rate * (config.loraplus_lr_ratio or 1.0) if is_raised else config.learning_rate


def split_for_lora_plus(optimizer: torch.optim.Optimizer, model: nn.Module, config: RunConfig) -> None:
    """Gives an optimizer that has not stepped yet a group for each learning rate; settings of its groups stay.

    The groups of the plain rate come first, so that the rate in the log is the one that was set.
    """
    rates = {id(weight): lora_plus_rate(name, weight, config) for name, weight in model.named_parameters()}
    groups: list[dict[str, Any]] = []
    for rate in sorted(set(rates.values()), key=lambda rate: (rate != config.learning_rate, rate)):
        for group in optimizer.param_groups:
            chosen = [weight for weight in group["params"] if rates[id(weight)] == rate]
            if chosen:
                groups.append({**group, "params": chosen, "lr": rate})
    optimizer.param_groups[:] = groups
    counts = {rate: sum(len(group["params"]) for group in groups if group["lr"] == rate) for rate in rates.values()}
    logger.info("LoRA+: %s", ", ".join(f"{count} weights at {rate:g}" for rate, count in counts.items() if count))
