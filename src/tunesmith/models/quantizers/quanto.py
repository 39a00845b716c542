"""quanto (optimum-quanto): int8 and int4 weights. Layers are replaced once they are read."""

from __future__ import annotations

from typing import Any

from torch import nn

from tunesmith.core.log import get_logger
from tunesmith.core.optional import require
from tunesmith.models.quantizers.base import Quantizer

logger = get_logger(__name__)


class Quanto(Quantizer):
    """quanto's layers in place of torch's."""

    @property
    def name(self) -> str:
        """Bits."""
        return f"int{self.config.quantization_bit} weights of quanto"

    def check(self) -> None:
        """The package must be there; for 4 bits it compiles its own code once."""
        require("optimum.quanto", "quanto", "quantization_method: quanto")
        if self.config.quantization_bit == 4:
            logger.info("quanto compiles its 4-bit code at first use, which takes minutes and a C++ compiler")

    def convert(self, model: Any) -> None:
        """Replaces the linear layers but the head, and drops the full weights."""
        package: Any = require("optimum.quanto", "quanto", "quantization_method: quanto")
        kind = package.qint8 if self.config.quantization_bit == 8 else package.qint4
        head = model.get_output_embeddings()
        names = [name for name, module in model.named_modules() if module is head]
        package.quantize(model, weights=kind, exclude=names)
        model.to(self.place)
        package.freeze(model)
        _freeze_all(model)


def _freeze_all(model: nn.Module) -> None:
    for parameter in model.parameters():
        parameter.requires_grad_(False)
