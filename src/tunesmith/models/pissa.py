"""PiSSA (arXiv 2404.02948): LoRA that starts from the principal part of each weight, which leaves the base.

W = W_res + s B0 A0 with B0 A0 the r largest singular parts; W_res stays frozen, A and B are trained from A0, B0. The
trained weight is W_res + s B A, so whoever loads it needs A0 and B0: they are saved beside it.
`convert` makes a plain LoRA of twice the rank for the untouched base out of both.
"""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from tunesmith.core.errors import ModelError
from tunesmith.core.log import get_logger
from tunesmith.core.runs import write_json
from tunesmith.models.beside import save_beside

logger = get_logger(__name__)

START = "pissa_init.safetensors"
"""Beside the adapter; not a folder, which transformers would take for a second adapter when it resumes."""
STARTED, BACKUP, CONVERTED = "pissa_init", "pissa_backup", "pissa_converted"
"""Folders that `convert` writes, under the names that tutorials know."""
_CONFIG, _WEIGHTS = "adapter_config.json", "adapter_model.safetensors"

Start = dict[str, torch.Tensor]
"""`NAME.lora_A.weight` and `NAME.lora_B.weight` -> what they were before the first step."""


def is_pissa(settings: Any) -> bool:
    """Whether a peft configuration (object or mapping) asks for a PiSSA start."""
    value = settings.get("init_lora_weights") if isinstance(settings, dict) else settings.init_lora_weights
    return isinstance(value, str) and value.startswith("pissa")


@torch.no_grad()
def principal_parts(model: Any, iterations: int) -> Start:
    """A0 and B0 of every layer of a new adapter: s B0 A0 is the best approximation of the weight of the adapter's rank.

    Args:
        model: a PeftModel over untouched base weights.
        iterations: of the randomised decomposition, which torch's seed decides; -1: an exact one.
    """
    start: Start = {}
    for name, layer in lora_layers(model):
        adapter, base = layer.active_adapters[0], layer.get_base_layer()
        rank = layer.r[adapter]
        if not isinstance(base, torch.nn.Linear) or rank > min(base.weight.shape):
            raise ModelError(
                f"pissa_init: {name} is a {type(base).__name__} of shape {tuple(base.weight.shape)}, and only a "
                f"linear layer has {rank} principal parts, one for each unit of width (lora_rank)"
            )
        parts = low_rank_parts(base.weight.to(torch.float32), rank, layer.scaling[adapter], iterations)
        start[f"{name}.lora_A.weight"], start[f"{name}.lora_B.weight"] = parts
    return start


def lora_layers(model: Any) -> Iterator[tuple[str, Any]]:
    """Name and layer of each linear layer with LoRA on it."""
    for name, layer in model.named_modules():
        if getattr(layer, "lora_A", None):
            yield name, layer


def low_rank_parts(
    weight: torch.Tensor, rank: int, scaling: float, iterations: int, oversampling: int = 0
) -> tuple[torch.Tensor, torch.Tensor]:
    """(A, B) with `scaling` B A the best approximation of a matrix.

    Args:
        weight: (out, in), float32.
        rank: r of A (r, in) and B (out, r).
        scaling: of the adapter.
        iterations: of the randomised decomposition; -1: an exact one.
        oversampling: dimensions more than the rank that the randomised one looks at.
    """
    if iterations < 0:
        left, values, right = torch.linalg.svd(weight, full_matrices=False)
    else:
        width = min(rank + oversampling, *weight.shape)
        left, values, columns = torch.svd_lowrank(weight, q=width, niter=iterations)
        right = columns.T
    root = (values[:rank] / scaling).sqrt()
    return (root[:, None] * right[:rank]).contiguous(), (left[:, :rank] * root).contiguous()


def read_start(folder: Path, file_name: str = START) -> Start | None:
    """The matrices that an adapter started from, None where they were not saved with it."""
    from safetensors.torch import load_file

    file = folder / file_name
    return load_file(str(file)) if file.is_file() else None


@torch.no_grad()
def take_out(model: Any, start: Start, *, fill: bool) -> None:
    """Takes the principal part out of the base weights: W - s B0 A0.

    Args:
        model: a PeftModel over untouched base weights.
        start: A0 and B0.
        fill: whether the adapter's matrices are set to A0 and B0, too (a start, not a trained adapter).

    Raises:
        ModelError: start and adapter do not belong together.
    """
    used = 0
    for name, layer in model.named_modules():
        keys = f"{name}.lora_A.weight", f"{name}.lora_B.weight"
        if keys[0] not in start:
            continue
        adapter = layer.active_adapters[0]
        weight = layer.get_base_layer().weight
        down, up = (start[key].to(weight.device, torch.float32) for key in keys)
        rest = weight.data.to(torch.float32) - layer.scaling[adapter] * up @ down
        weight.data = rest.to(weight.dtype)
        if fill:
            layer.lora_A[adapter].weight.data = down.clone()
            layer.lora_B[adapter].weight.data = up.clone()
        used += 2
    if used != len(start):
        raise ModelError(
            f"the start of the adapter: {len(start) - used} of its matrices belong to no layer of this adapter"
        )


def save_with_start(model: Any, start: Start, file_name: str = START) -> None:
    """Makes every save of the model's adapter write its start beside it."""
    save_beside(model, lambda folder: _write_tensors(folder / file_name, start))


def _read_settings(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / _CONFIG).read_text(encoding="utf-8"))
    return found


def _write_tensors(file: Path, tensors: Start) -> None:
    from safetensors.torch import save_file

    save_file({name: tensor.contiguous().cpu() for name, tensor in tensors.items()}, str(file))


def _write(folder: Path, settings: dict[str, Any], tensors: Start) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    _write_tensors(folder / _WEIGHTS, tensors)
    write_json(folder / _CONFIG, settings)


def convert(folder: Path) -> None:
    """Turns a saved PiSSA adapter into a plain LoRA over the untouched base: B A - B0 A0 = [B, -B0] [A; A0].

    The rank doubles, and alpha with it (by sqrt(2) where rsLoRA scales by the root), so that the scale stays. The
    adapter as trained goes to `pissa_backup/`, its start to `pissa_init/`; `pissa_converted/` is a copy of the result.

    Args:
        folder: adapter_config.json, adapter_model.safetensors and pissa_init.safetensors.

    Raises:
        ModelError: the start is not there.
    """
    from safetensors.torch import load_file

    start = read_start(folder)
    if start is None:
        raise ModelError(f"pissa_convert: {folder} holds no {START}, so the adapter cannot be converted")
    settings = _read_settings(folder)
    tensors = load_file(str(folder / _WEIGHTS))
    (folder / BACKUP).mkdir(exist_ok=True)
    for name in (_CONFIG, _WEIGHTS):
        shutil.copy2(folder / name, folder / BACKUP / name)
    (folder / START).replace(folder / BACKUP / START)
    plain = {**settings, "init_lora_weights": True}
    _write(folder / STARTED, plain, start)
    for name, tensor in start.items():
        is_down = ".lora_A." in name
        pair = (tensors[name], (tensor if is_down else -tensor).to(tensors[name].dtype))
        tensors[name] = torch.cat(pair, dim=0 if is_down else 1)
    alpha = plain["lora_alpha"] * (math.sqrt(2) if plain.get("use_rslora") else 2)
    plain |= {"r": 2 * plain["r"], "lora_alpha": alpha}
    for target in (folder, folder / CONVERTED):
        _write(target, plain, tensors)
    logger.info("PiSSA: saved as a plain LoRA of rank %d for the untouched base", plain["r"])
