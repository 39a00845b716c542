"""One plain LoRA adapter that adds what several add: low-rank products side by side are a product again."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from tunesmith.core.errors import ModelError
from tunesmith.models.live_adapter import (
    beyond_low_rank,
    low_rank_parts,
    obstacle,
    other_base,
    read_settings,
    read_weights,
    scaling_of,
)


def write_sum(paths: Sequence[Path], folder: Path) -> int:
    """Writes an adapter whose effect is the sum of others', with one rank and the scaling 1 everywhere.

    Engines that know neither patterns of ranks and scalings nor several adapters on one request can serve it.

    Args:
        paths: folders of plain LoRA adapters, trained on one base or each on top of those before it.
        folder: is made.

    Returns:
        The rank.

    Raises:
        ModelError: one of them is more than a sum of low-rank products, or cannot be read.
    """
    from safetensors.torch import save_file

    pairs: dict[str, list[tuple[torch.Tensor, torch.Tensor]]] = {}
    for path in paths:
        for module, pair in _pairs(path).items():
            pairs.setdefault(module, []).append(pair)
    whole = {
        name: (torch.cat([a for a, _ in some]), torch.cat([b for _, b in some], 1)) for name, some in pairs.items()
    }
    rank = max(len(a) for a, _ in whole.values())
    tensors = {}
    for module, (a, b) in whole.items():
        missing = rank - len(a)
        tensors[f"base_model.model.{module}.lora_A.weight"] = torch.cat([a, a.new_zeros(missing, a.shape[1])])
        tensors[f"base_model.model.{module}.lora_B.weight"] = torch.cat([b, b.new_zeros(len(b), missing)], 1)
    folder.mkdir(parents=True)
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, folder / "adapter_model.safetensors")
    settings: dict[str, Any] = {
        **{name: read_settings(paths[-1]).get(name) for name in ("base_model_name_or_path", "task_type")},
        "peft_type": "LORA",
        "r": rank,
        "lora_alpha": rank,
        "bias": "none",
        "target_modules": sorted({module.rsplit(".", 1)[-1] for module in whole}),
        "inference_mode": True,
    }
    (folder / "adapter_config.json").write_text(json.dumps(settings), encoding="utf-8")
    return rank


def _pairs(path: Path) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    """A (r, in) and scaling * B (out, r) of each module, in float32."""
    settings = read_settings(path)
    reason = obstacle(settings) or beyond_low_rank(settings)
    parts, others = low_rank_parts(read_weights(path))
    if other_base(path):
        reason = f"it {other_base(path)}"
    if not reason and others:
        reason = f"it holds {min(others)!r}"
    if reason:
        raise ModelError(f"adapter {path} is not a plain LoRA adapter: {reason}; merge it with tunesmith export")
    found = {}
    for module, pair in parts.items():
        if set(pair) != {"A", "B"}:
            raise ModelError(f"adapter {path} is not whole: {module!r} has {sorted(pair)}")
        a, b = pair["A"].float(), pair["B"].float()
        found[module] = (a, b * scaling_of(settings, module, len(a)))
    return found
