"""Linear layers with weights packed for the CPU's matrix kernels: for models that only answer.

With few rows (16 answers under way) an ordinary product spends half its time on rearranging weights for the kernel;
here that is done once. The price is a second copy of the weights. A packed layer does not see later changes of its
weight, so models that may be trained or merged are never packed.
"""

from __future__ import annotations

from typing import Any

import psutil
import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812 - the field's name for it

from tunesmith.core.log import get_logger
from tunesmith.models.linear import is_plain

logger = get_logger(__name__)

_ROWS = 16
"""Rows that the packing is best for; others are computed, too."""
_SHARE = 0.4
"""Of the free memory, what packed weights may take."""


def _packed_forward(module: nn.Linear) -> Any:
    """A forward pass of one layer over packed weights."""
    weight = torch.ops.mkldnn._reorder_linear_weight(module.weight.detach(), _ROWS)
    bias = None if module.bias is None else module.bias.detach()
    linear = torch.ops.mkldnn._linear_pointwise

    def forward(x: torch.Tensor) -> torch.Tensor:
        return linear(x, weight, bias, "none", [], "")

    return forward


def _agrees(module: nn.Linear, forward: Any) -> bool:
    """Whether both ways give the same numbers, for one row and for several in a line."""
    for shape in ((1, 1), (1, 5)):
        x = torch.linspace(-1, 1, shape[1] * module.in_features).view(*shape, module.in_features)
        expected, got = F.linear(x, module.weight, module.bias), forward(x)
        if got.shape != expected.shape or not torch.allclose(got, expected, atol=1e-4, rtol=1e-4):
            return False
    return True


def _is_packable(module: nn.Module) -> bool:
    return (
        is_plain(module)
        and module.weight.dtype == torch.float32
        and module.weight.device.type == "cpu"
        and "forward" not in vars(module)
    )


@torch.inference_mode()
def pack(model: nn.Module) -> int:
    """Packs the linear layers of a model on the CPU, where there is memory for it.

    Args:
        model: never to be trained again.

    Returns:
        How many layers were packed.
    """
    layers: list[nn.Linear] = [module for module in model.modules() if _is_packable(module)]
    if not torch.backends.mkldnn.is_available() or not hasattr(torch.ops.mkldnn, "_reorder_linear_weight"):
        return 0
    n_bytes = sum(layer.weight.nbytes for layer in layers)
    if n_bytes > _SHARE * psutil.virtual_memory().available:
        logger.info("not enough free memory to pack weights for faster answers (%.1f GB)", n_bytes / 1e9)
        return 0
    count = 0
    for layer in layers:
        try:
            forward = _packed_forward(layer)
            agrees = _agrees(layer, forward)
        except RuntimeError as error:  # a build of torch without the kernels
            logger.debug("weights stay as they are: %s", error)
            return count
        if agrees:
            layer.forward = forward
            count += 1
    return count
