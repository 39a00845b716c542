"""torchao: int8 weights with a scale a row."""

from __future__ import annotations

from typing import Any

from tunesmith.core.errors import ModelError
from tunesmith.core.optional import require
from tunesmith.models.quantizers.base import Quantizer


class TorchAo(Quantizer):
    """Weights are quantised by transformers while they are read."""

    @property
    def name(self) -> str:
        """Bits."""
        return f"int{self.config.quantization_bit} weights of torchao"

    def check(self) -> None:
        """int4 has kernels for CUDA alone, and peft trains adapters on int8 alone."""
        require("torchao", "torchao", "quantization_method: torchao")
        if self.config.quantization_bit == 4 and self.place.type != "cuda":
            raise ModelError(
                "quantization_bit: 4 with torchao needs CUDA: its int4 products have no CPU kernel; use bnb or hqq for "
                "4 bits, or torchao with 8"
            )

    def loading(self) -> dict[str, Any]:
        """Scales a row."""
        from transformers import TorchAoConfig

        kinds: Any = require("torchao.quantization", "torchao")
        kind = kinds.Int8WeightOnlyConfig() if self.config.quantization_bit == 8 else kinds.Int4WeightOnlyConfig()
        return {"quantization_config": TorchAoConfig(kind), "device_map": {"": self.place}}
