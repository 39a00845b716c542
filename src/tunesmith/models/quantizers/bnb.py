"""bitsandbytes: 4 bits (NF4 of QLoRA, arXiv 2305.14314, or FP4) and 8 bits (LLM.int8, arXiv 2208.07339)."""

from __future__ import annotations

import warnings
from typing import Any

import torch
from torch import nn

from tunesmith.config.schema import RunConfig
from tunesmith.core.optional import require
from tunesmith.models.quantizers.base import Quantizer


class BitsAndBytes(Quantizer):
    """Weights are quantised by transformers while they are read."""

    @property
    def name(self) -> str:
        """Format and scales."""
        if self.config.quantization_bit == 8:
            return "int8 of bitsandbytes"
        scales = "scales quantised, too" if self.config.double_quantization else "scales in float32"
        return f"{self.config.quantization_type} of bitsandbytes, {scales}"

    def check(self) -> None:
        """The package must be there."""
        require("bitsandbytes", "bitsandbytes", "quantization_bit with bnb")

    def loading(self) -> dict[str, Any]:
        """Layers compute in the run's number format: float32 where bfloat16 is slow."""
        from transformers import BitsAndBytesConfig

        if self.config.quantization_bit == 8:
            settings: Any = BitsAndBytesConfig(load_in_8bit=True)
        else:
            settings = BitsAndBytesConfig(
                load_in_4bit=True,
                bnb_4bit_quant_type=self.config.quantization_type,
                bnb_4bit_use_double_quant=self.config.double_quantization,
                bnb_4bit_compute_dtype=self.dtype,
                bnb_4bit_quant_storage=torch.uint8,
            )
        spread = self.config.quantization_device_map
        return {"quantization_config": settings, "device_map": spread or {"": self.place}}


def keep_layout(model: nn.Module, config: RunConfig) -> None:
    """Keeps layers of bitsandbytes as they are; models without such layers are left alone.

    On CPUs with bfloat16 units bitsandbytes packs a 4-bit layer anew at its first forward pass without gradients and
    computes in bfloat16 from then on. After that a backward pass gives no gradients at all, so an evaluation before a
    training step would end the learning. Models that only answer may use it, unless float32 was asked for.
    """
    # Said at every product; activations are rounded to 8 bits there anyway.
    warnings.filterwarnings("ignore", message="MatMul8bitLt: inputs will be cast")
    if config.command != "train" and config.infer_dtype == "auto":
        return
    for module in model.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False
