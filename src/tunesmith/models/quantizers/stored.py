"""Models whose files are quantised already: GPTQ, AWQ, AQLM, compressed-tensors and others that config.json names."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

from tunesmith.core.errors import ModelError
from tunesmith.core.optional import is_installed, require

_PACKAGES = {
    "gptq": (("gptqmodel", "gptq"), ("optimum", "gptq")),
    "awq": (("gptqmodel", "gptq"),),
    "aqlm": (("aqlm", "aqlm"),),
    "compressed-tensors": (("compressed_tensors", "compressed-tensors"),),
    "bitsandbytes": (("bitsandbytes", "bitsandbytes"),),
    "torchao": (("torchao", "torchao"),),
}
"""quant_method -> packages (import name, extra) that read it."""
_CANNOT = {
    "hqq": "transformers 5.23 fails on stored HQQ weights; name the unquantised model and set quantization_method: hqq",
    "eetq": "EETQ has no package for current torch; name the unquantised model and set quantization_bit: 8",
    "auto-round": "peft has no adapter layer for it; the same models are published as GPTQ or AWQ",
}
_MADE_WHOLE = ("mxfp4", "fp8", "compressed-tensors")
"""Kinds that become plain weights while they are read: their kernels need newer GPUs, or are not for training."""


def read_stored(folder: Path) -> str:
    """The library that a model's files are quantised with, in transformers' name for it; empty for a plain model."""
    try:
        facts = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return ""  # its absence is said where the configuration is read
    settings = facts.get("quantization_config") or (facts.get("text_config") or {}).get("quantization_config")
    return str(settings.get("quant_method") or "bitsandbytes") if isinstance(settings, dict) else ""


def settle_stored(method: str, model_config: Any, place: torch.device, dtype: torch.dtype) -> dict[str, Any]:
    """Checks the packages of a stored quantisation and sets what it needs on this machine.

    Args:
        method: from read_stored.
        model_config: transformers' configuration, changed in place.
        place: device of the model.
        dtype: that layers compute in.

    Returns:
        Arguments of from_pretrained.

    Raises:
        MissingPackageError, ModelError: it cannot be read here.
    """
    if method in _CANNOT:
        raise ModelError(f"the model is quantised with {method}: {_CANNOT[method]}")
    for module, extra in _PACKAGES.get(method, ()):
        require(module, extra, f"a model quantised with {method}")
    settings = model_config.quantization_config
    if method in ("gptq", "awq") and place.type == "cpu":
        # gptqmodel's default CPU kernels lose most gradients of adapters after one pass without gradients.
        settings["backend"] = "torch" if method == "gptq" else "torch_awq"
    if method == "bitsandbytes" and settings.get("load_in_4bit"):
        settings["bnb_4bit_compute_dtype"] = str(dtype).removeprefix("torch.")
    if method in _MADE_WHOLE:
        settings["dequantize"] = True
    if method == "aqlm" and place.type == "cpu" and not is_installed("numba"):
        raise ModelError("the model is quantised with aqlm, which needs numba on a CPU: pip install 'aqlm[cpu]'")
    return {"device_map": {"": place}}
