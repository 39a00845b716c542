"""Optimizers that transformers makes from `optim` and `optim_args`, with their packages and devices checked first."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from tunesmith.core.errors import TrainingError
from tunesmith.core.log import get_logger
from tunesmith.core.optional import is_installed, require

if TYPE_CHECKING:
    from tunesmith.config.schema import RunConfig

logger = get_logger(__name__)

_PACKAGES = {
    "adamw_torch_4bit": ("torchao", "torchao"),
    "adamw_torch_8bit": ("torchao", "torchao"),
    "grokadamw": ("grokadamw", "grokadamw"),
    "stable_adamw": ("optimi", "optimi"),
    "ademamix": ("bitsandbytes", "bitsandbytes"),
    "rmsprop_bnb": ("bitsandbytes", "bitsandbytes"),
}
"""`optim` -> import name, extra."""
_BITSANDBYTES = ("_8bit", "_32bit", "_bnb")
_DEVICES = {
    "adamw_torch_xla": ("torch_xla", "a TPU and the package torch_xla"),
    "adamw_torch_npu_fused": ("torch_npu", "an Ascend NPU and the package torch_npu"),
    "adamw_anyprecision": ("torchdistx", "the package torchdistx, which no registry has"),
}


def _check_packages(name: str) -> None:
    """Refuses what is not installed before transformers says it in its own way."""
    if name in _DEVICES:
        module, needs = _DEVICES[name]
        if not is_installed(module):
            raise TrainingError(f"optim: {name} needs {needs}; adamw_torch_fused does the same on CPU and GPU")
        return
    package = _PACKAGES.get(name)
    if package is None and any(mark in name for mark in _BITSANDBYTES):
        package = ("bitsandbytes", "bitsandbytes")
    if package:
        require(*package, purpose=f"optim: {name}")


def native(config: RunConfig, trainer: Any) -> torch.optim.Optimizer:
    """The optimizer that transformers makes.

    Raises:
        MissingPackageError: `optim` names one of a package that is not installed.
        TrainingError: the package refuses; its reason is in the message.
    """
    _check_packages(config.optim)
    try:
        optimizer: torch.optim.Optimizer = trainer.plain_optimizer()
    except (ImportError, ValueError, TypeError, RuntimeError, NotImplementedError) as error:
        raise TrainingError(f"optim: {config.optim} cannot be used: {str(error).strip().splitlines()[0]}") from error
    if getattr(optimizer, "is_paged", False) and trainer.args.device.type == "cpu":
        optimizer.is_paged = False
        logger.info("optim: %s: states are in the CPU's memory already, nothing is paged", config.optim)
    return optimizer
