"""The one table of optimizers: which one a configuration asks for, and who builds it."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

import torch

from tunesmith.config.optimizer_rules import optimizer_family
from tunesmith.core.lazy import lookup
from tunesmith.core.log import get_logger
from tunesmith.training.optimizers.groups import split_for_lora_plus

if TYPE_CHECKING:
    from tunesmith.config.schema import RunConfig

logger = get_logger(__name__)

BUILDERS = {
    "galore": "tunesmith.training.optimizers.low_rank:galore",
    "apollo": "tunesmith.training.optimizers.low_rank:apollo",
    "badam": "tunesmith.training.optimizers.badam:badam",
    "adam_mini": "tunesmith.training.optimizers.adam_mini:adam_mini",
    "muon": "tunesmith.training.optimizers.muon:muon",
    "lomo": "tunesmith.training.optimizers.in_backward:lomo",
    "adalomo": "tunesmith.training.optimizers.in_backward:adalomo",
    "schedule_free": "tunesmith.training.optimizers.averaged:schedule_free",
    "native": "tunesmith.training.optimizers.native:native",
}
"""Family (config.optimizer_rules.optimizer_family) -> function (config, trainer) that gives the optimizer."""

Builder = Callable[[Any], torch.optim.Optimizer]


def optimizer_builder(config: RunConfig) -> Builder:
    """What makes the optimizer once the trainer's model is on its device.

    Args:
        config: `optim`, `use_galore`, `use_apollo`, `use_badam`, `use_adam_mini`, `use_muon` and their keys.

    Returns:
        A function of the trainer.
    """
    return partial(_build, config)


def _build(config: RunConfig, trainer: Any) -> torch.optim.Optimizer:
    family = optimizer_family(config)
    optimizer: torch.optim.Optimizer = lookup(BUILDERS, family)(config, trainer)
    if config.loraplus_lr_ratio:
        split_for_lora_plus(optimizer, trainer.model, config)
    if family != "native":
        logger.info("optimizer: %s", describe(optimizer))
    return optimizer


def describe(optimizer: Any) -> str:
    """One line for the log."""
    return str(getattr(optimizer, "description", type(optimizer).__name__))
