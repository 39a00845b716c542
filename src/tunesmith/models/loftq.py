"""LoftQ (arXiv 2310.08659) on a base that stays as it is: LoRA starts from what rounding took away from each weight.

The paper alternates between rounding W - s B A and decomposing the rest, which needs a base of its own for every
adapter. Here the rounded base Q(W) is the usual one, and s B0 A0 is the best approximation of W - Q(W) (one round
of the paper's algorithm), so that the run begins nearer to the full model. What is trained is Q(W) + s B A. On the
unquantised base, for a merge, the start is taken out again: W - s B0 A0 + s B A.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn

from tunesmith.core.errors import ModelError
from tunesmith.core.log import get_logger
from tunesmith.models import pissa
from tunesmith.models.linear import is_quantized
from tunesmith.models.provenance import weight_files

logger = get_logger(__name__)

START = "loftq_init.safetensors"
"""Beside the adapter: the matrices that it started from."""
_ITERATIONS, _OVERSAMPLING = 8, 8
_COLUMNS = 1024
"""Of a weight that are asked for at a time."""


@torch.no_grad()
def start(model: Any, resume: Path | None) -> None:
    """Sets the matrices of a new adapter on a quantised base, and has them saved with it.

    Args:
        model: a PeftModel whose base was quantised while loading.
        resume: checkpoint of the run; its start is kept.

    Raises:
        ModelError: the base is not quantised, or its files lack a weight.
    """
    found = pissa.read_start(resume, START) if resume else None
    if found is None:
        found = _starts(model, Path(model.get_base_model().config._name_or_path))
    for name, layer in pissa.lora_layers(model):
        adapter = layer.active_adapters[0]
        if f"{name}.lora_A.weight" in found:
            layer.lora_A[adapter].weight.copy_(found[f"{name}.lora_A.weight"])
            layer.lora_B[adapter].weight.copy_(found[f"{name}.lora_B.weight"])
    pissa.save_with_start(model, found, START)


def _starts(model: Any, folder: Path) -> pissa.Start:
    found: pissa.Start = {}
    before = after = 0.0
    for name, layer in pissa.lora_layers(model):
        base = layer.get_base_layer()
        if not is_quantized(base):
            continue
        adapter = layer.active_adapters[0]
        error = _stored_weight(folder, name.removeprefix("base_model.model.")) - rounded_weight(base)
        scaling = layer.scaling[adapter]
        down, up = pissa.low_rank_parts(error, layer.r[adapter], scaling, _ITERATIONS, _OVERSAMPLING)
        found[f"{name}.lora_A.weight"], found[f"{name}.lora_B.weight"] = down, up
        before += float(error.square().sum())
        after += float((error - scaling * up @ down).square().sum())
    if not found:
        raise ModelError("loftq_init: no layer of this base is quantised")
    logger.info(
        "LoftQ: the rounding error of %d layers is %.0f %% of what it was",
        len(found) // 2,
        100 * (after / before) ** 0.5,
    )
    return found


def rounded_weight(layer: nn.Module) -> torch.Tensor:
    """(out, in) float32: what a quantised layer multiplies with, found by asking it for each unit vector."""
    module: Any = layer
    place = next(iter([*module.parameters(), *module.buffers()]), torch.empty(0)).device
    columns = []
    for begin in range(0, module.in_features, _COLUMNS):
        count = min(_COLUMNS, module.in_features - begin)
        units = torch.zeros(count, module.in_features, device=place)
        units[torch.arange(count), torch.arange(begin, begin + count)] = 1.0
        columns.append(module(units).float())
    weight = torch.cat(columns)
    bias = getattr(module, "bias", None)
    return (weight if bias is None else weight - bias.float()).T.contiguous().cpu()


def _stored_weight(folder: Path, layer: str) -> torch.Tensor:
    from safetensors import safe_open

    for file in weight_files(folder):
        if file.suffix != ".safetensors":
            raise ModelError(
                f"loftq_init reads single weights, which {file.name} does not give: save it as safetensors"
            )
        with safe_open(str(file), "pt") as handle:
            if f"{layer}.weight" in handle.keys():  # noqa: SIM118 - no mapping
                weight: torch.Tensor = handle.get_tensor(f"{layer}.weight").float()
                return weight
    raise ModelError(f"loftq_init: the files of {folder} hold no weight named {layer}.weight")


def restore(model: Any, folder: Path) -> None:
    """Puts a loaded adapter on its footing: on an unquantised base its start is taken out of the weights.

    Args:
        model: a PeftModel with the adapter.
        folder: of the adapter; nothing is done where it did not start so.
    """
    found = pissa.read_start(folder, START)
    if found is None:
        return
    if not any(is_quantized(layer.get_base_layer()) for _, layer in pissa.lora_layers(model)):
        pissa.take_out(model, found, fill=False)
    pissa.save_with_start(model, found, START)
