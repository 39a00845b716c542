"""HQQ (half-quadratic quantisation): 1 to 8 bits without data. Layers are replaced once they are read.

Used directly: transformers' own way to it (HqqConfig) fails in version 5.23.
"""

from __future__ import annotations

from typing import Any

from torch import nn

from tunesmith.core.optional import require
from tunesmith.models.linear import is_plain, linear_layers
from tunesmith.models.quantizers.base import Quantizer

_GROUPS = (64, 32, 16, 8)
"""Numbers that share a scale, the largest that divides a weight."""


class HalfQuadratic(Quantizer):
    """hqq's layers in place of torch's."""

    @property
    def name(self) -> str:
        """Bits."""
        return f"{self.config.quantization_bit} bits of hqq"

    def check(self) -> None:
        """The package must be there."""
        require("hqq", "hqq", "quantization_method: hqq")

    def convert(self, model: nn.Module) -> None:
        """Replaces the linear layers one by one, so that at most one is there twice."""
        package: Any = require("hqq.core.quantize", "hqq", "quantization_method: hqq")
        package.HQQLinear.set_backend(package.HQQBackend.PYTORCH)  # weights are rounded values again in each pass
        for name, layer in linear_layers(model).items():
            group = next((size for size in _GROUPS if layer.in_features * layer.out_features % size == 0), None)
            if not is_plain(layer) or group is None:
                continue
            settings = package.BaseQuantizeConfig(nbits=self.config.quantization_bit, group_size=group, axis=1)
            layer.requires_grad_(False)
            quantised = package.HQQLinear(layer, settings, compute_dtype=self.dtype, device=str(self.place))
            owner, _, leaf = name.rpartition(".")
            setattr(model.get_submodule(owner), leaf, quantised)
