"""Kernels of other packages, for NVIDIA GPUs only: Liger and unsloth. Nothing here runs on a CPU."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from tunesmith.config.schema import RunConfig
from tunesmith.core.errors import ModelError
from tunesmith.core.log import get_logger
from tunesmith.core.optional import require

logger = get_logger(__name__)

_LIGER_LOSSES = ("cross_entropy", "fused_linear_cross_entropy")
"""Left out: Tunesmith computes the loss from hidden states itself, in pieces."""


def _needs_gpu(key: str, package: str, config: RunConfig) -> None:
    if config.use_cpu or not torch.cuda.is_available():
        raise ModelError(
            f"{key}: true needs an NVIDIA GPU (the package {package} is made of Triton kernels), and this run is on "
            "the CPU; drop the key: Tunesmith's own fused layers are used on CPUs"
        )


def apply_liger(model: Any, config: RunConfig) -> None:
    """Puts Liger's norms, rotary positions and gated units into a loaded model (`enable_liger_kernel`).

    Args:
        model: the transformers model, before adapters.
        config: `enable_liger_kernel`, `use_liger_kernel`, `liger_kernel_config`.

    Raises:
        ModelError: no GPU, or a setting that Liger does not know for this model.
        MissingPackageError: liger-kernel is not installed.
    """
    key = "enable_liger_kernel" if config.enable_liger_kernel else "use_liger_kernel"
    if not (config.enable_liger_kernel or config.use_liger_kernel):
        return
    _needs_gpu(key, "liger-kernel", config)
    liger: Any = require("liger_kernel.transformers", "liger-kernel", key)
    settings = dict.fromkeys(_LIGER_LOSSES, False) | (config.liger_kernel_config or {})
    try:
        liger._apply_liger_kernel_to_instance(model=model, **settings)
    except TypeError as error:
        raise ModelError(f"liger_kernel_config: {error}") from error
    logger.info("liger kernels are on for %s", model.config.model_type)


def load_with_unsloth(config: RunConfig, folder: Path, dtype: torch.dtype) -> Any:
    """The base model as unsloth loads it (`use_unsloth`). Written after unsloth's documentation; no GPU has run it yet.

    Raises:
        ModelError: no GPU.
        MissingPackageError: unsloth is not installed.
    """
    _needs_gpu("use_unsloth", "unsloth", config)
    unsloth: Any = require("unsloth", "unsloth", "use_unsloth")
    model, _ = unsloth.FastLanguageModel.from_pretrained(
        model_name=str(folder),
        max_seq_length=config.cutoff_len,
        dtype=dtype,
        load_in_4bit=False,
        trust_remote_code=config.trust_remote_code,
    )
    return model
