"""Products in 8-bit floats (`fp8`) through torchao: weights and activations are rounded anew for each product.

Only GPUs from compute capability 8.9 on (H100, RTX 40) multiply such numbers; no such GPU has run this yet. Scales are
one a tensor, computed from the numbers at hand.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from tunesmith.config.schema import RunConfig
from tunesmith.core.errors import ModelError
from tunesmith.core.log import get_logger
from tunesmith.core.optional import require

logger = get_logger(__name__)

_MULTIPLE = 16
"""Sizes that the products of these GPUs take."""


def apply_float8(model: Any, config: RunConfig) -> None:
    """Puts layers that multiply in 8-bit floats in place of plain ones, the head left out.

    Args:
        model: the transformers model, before adapters.
        config: `fp8`.

    Raises:
        ModelError: this machine has no units for it, or no layer is of a size that they take.
        MissingPackageError: torchao is not installed.
    """
    if not config.fp8:
        return
    if config.use_cpu or not torch.cuda.is_available() or torch.cuda.get_device_capability() < (8, 9):
        raise ModelError(
            "fp8: true needs a GPU that multiplies 8-bit floats (NVIDIA H100, RTX 40 or newer), which this machine "
            "does not have; drop the key"
        )
    count = convert(model, emulate=False)
    if not count:
        raise ModelError("fp8: true, but no linear layer has sizes that are multiples of 16; drop the key")
    logger.info("fp8: %d linear layers multiply in 8-bit floats", count)


def convert(model: Any, *, emulate: bool) -> int:
    """Replaces linear layers.

    Args:
        model: the transformers model.
        emulate: round as such a GPU does, but multiply in the usual format: for tests.

    Returns:
        How many layers were replaced.
    """
    package: Any = require("torchao.float8", "torchao", "fp8")
    head = model.get_output_embeddings()

    def fits(module: nn.Module, _: str) -> bool:
        if not isinstance(module, nn.Linear) or module is head:
            return False
        return module.in_features % _MULTIPLE == 0 and module.out_features % _MULTIPLE == 0

    settings = package.Float8LinearConfig(emulate=emulate)
    package.convert_to_float8_training(model, module_filter_fn=fits, config=settings)
    return sum(type(module).__name__ == "Float8Linear" for module in model.modules())
