"""Which number format to compute in: what this machine has units for, said in one line."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from tunesmith.config.schema import RunConfig
from tunesmith.core.errors import ModelError

_BY_NAME = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


@dataclass(frozen=True, slots=True)
class Precision:
    """How a run computes.

    Attributes:
        weights: dtype of frozen weights.
        trained: dtype of trained weights.
        autocast: `bf16`, `fp16` or None.
        reason: one line for the user.
    """

    weights: torch.dtype
    trained: torch.dtype
    autocast: str | None
    reason: str


_BF16_UNITS = ("avx512_bf16", "amx_bf16", "bf16", "sve_bf16")


def has_bf16_units() -> bool:
    """Whether this CPU multiplies bf16 in hardware; without, it takes several times as long as fp32.

    Asked of the CPU and not of a clock: a run that goes on must compute as it began, on a busy machine, too.
    """
    known = torch.cpu.get_capabilities()
    return any(known.get(name, False) for name in _BF16_UNITS)


def device() -> torch.device:
    """The device to compute on: CUDA, then XPU/NPU/MPS as torch names its accelerator, else the CPU."""
    accelerator = torch.accelerator.current_accelerator(check_available=True)
    return accelerator if accelerator is not None else torch.device("cpu")


def _asked(config: RunConfig) -> str | None:
    """The format that the user named, or None."""
    if config.dtype != "auto":
        return config.dtype
    if config.bf16 or config.pure_bf16:
        return "bfloat16"
    return "float16" if config.fp16 else None


def _cpu_precision(asked: str | None, stored: torch.dtype) -> Precision:
    wants_half = asked in ("bfloat16", "float16") or (asked is None and stored in (torch.bfloat16, torch.float16))
    if not wants_half:
        return Precision(torch.float32, torch.float32, None, "computing in fp32")
    if asked == "float16":
        return Precision(torch.float32, torch.float32, None, "computing in fp32: fp16 was asked for, which needs a GPU")
    if has_bf16_units():
        reason = "computing in bf16: this CPU multiplies it in hardware"
        return Precision(torch.bfloat16, torch.float32, "bf16", reason)
    wish = "bf16 was asked for" if asked else "the model is half"
    reason = f"computing in fp32: {wish}, but this CPU has no bf16 units and would be several times slower"
    return Precision(torch.float32, torch.float32, None, reason)


def _accelerator_precision(config: RunConfig, asked: str | None, stored: torch.dtype) -> Precision:
    if config.pure_bf16:
        return Precision(torch.bfloat16, torch.bfloat16, None, "computing in pure bf16")
    dtype = _BY_NAME[asked] if asked else stored
    if dtype == torch.bfloat16 and torch.cuda.is_available() and not torch.cuda.is_bf16_supported():
        if asked:
            raise ModelError("bf16 was asked for, but this GPU has no bf16 units: use fp16: true instead")
        dtype = torch.float16
    autocast = {torch.bfloat16: "bf16", torch.float16: "fp16"}.get(dtype)
    return Precision(dtype, torch.float32, autocast, f"computing in {autocast or 'fp32'}")


def training_precision(config: RunConfig, stored: torch.dtype) -> Precision:
    """Chooses the formats of a training run.

    Args:
        config: `dtype`, `bf16`, `fp16`, `pure_bf16`, `use_cpu` decide.
        stored: dtype of the checkpoint.

    Raises:
        ModelError: the device cannot do what was asked for.
    """
    asked = _asked(config)
    if config.use_cpu or device().type == "cpu":
        if config.pure_bf16:
            raise ModelError("pure_bf16: true needs a GPU with bf16 units; drop it, or use dtype: auto")
        if config.dtype in ("bfloat16", "float16"):
            # `dtype` is an order, `bf16: true` a wish that travels with YAML files from GPU machines.
            chosen = _BY_NAME[config.dtype]
            return Precision(chosen, chosen, None, f"computing in {config.dtype} as ordered by dtype:")
        return _cpu_precision(asked, stored)
    return _accelerator_precision(config, asked, stored)


def evaluation_dtype(config: RunConfig) -> torch.dtype | None:
    """The format that evaluation computes in, None for that of training."""
    if config.bf16_full_eval:
        return torch.bfloat16
    return torch.float16 if config.fp16_full_eval else None


def inference_dtype(config: RunConfig, stored: torch.dtype) -> torch.dtype:
    """The dtype of weights for generation: `infer_dtype`, else the checkpoint's, else fp32 where bf16 is slower."""
    if config.infer_dtype != "auto":
        return _BY_NAME[config.infer_dtype]
    if config.use_cpu or device().type == "cpu":
        return torch.float32 if stored == torch.float32 or not has_bf16_units() else torch.bfloat16
    return stored
