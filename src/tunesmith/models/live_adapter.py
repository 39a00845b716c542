"""LoRA adapters that come and go over a base that stays as it is, several in one forward pass. Serving only.

Here they are read; adapter_hooks.py adds them to a forward pass.
"""

from __future__ import annotations

import copy
import json
import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from tunesmith.core.errors import ModelError
from tunesmith.models import loftq, rope
from tunesmith.models.pissa import is_pissa

_PREFIX = "base_model.model."
_WEIGHT = re.compile(r"(?P<module>.+)\.lora_(?P<part>[AB]|magnitude_vector)(\.weight)?$")
_OWN_BASE = ".base_layer.weight"
"""peft puts the base's own weight beside an adapter on the head or the embedding."""

INSTEAD = "name it alone in adapter_name_or_path at the start, or merge it with tunesmith export"


@dataclass(frozen=True, slots=True)
class LowRank:
    """What an adapter adds to a linear module: `scaling * B A x`; DoRA then scales the sum.

    Attributes:
        a: (r, in).
        b: (out, r).
        scaling: alpha / r, or alpha / sqrt(r) with rslora.
        norm_scale: (out,) of DoRA, magnitude / |W + scaling B A|, bias not scaled (arXiv 2402.09353); None: plain LoRA.
    """

    a: torch.Tensor
    b: torch.Tensor
    scaling: float
    norm_scale: torch.Tensor | None = None


@dataclass(frozen=True, slots=True, eq=False)
class LiveAdapter:
    """A LoRA adapter in memory.

    Attributes:
        name: what requests call it.
        path: its folder.
        version: differs between any two that an engine ever loaded; names may come again.
        modules: module name of the base to what is added there, or to what stands in its place (`modules_to_save`).
    """

    name: str
    path: Path
    version: int
    modules: dict[str, LowRank | nn.Module]


def obstacle(settings: dict[str, Any]) -> str | None:
    """Why an adapter_config.json cannot be served live, None when it can."""
    checks = {
        "trainable_token_indices": "it holds rows of the embedding (new tokens)",
        "target_parameters": "it hangs on parameters, not on modules",
        "alora_invocation_tokens": "it is an activated LoRA",
        "lora_bias": "it has biases",
        "layer_replication": "it repeats layers",
    }
    if str(settings.get("peft_type", "")).upper() != "LORA":
        return f"it is a {settings.get('peft_type')} adapter"
    if settings.get("bias", "none") != "none":
        return "it has biases"
    if is_pissa(settings):
        return "it is a PiSSA adapter, whose base is changed (pissa_convert saves a plain one)"
    return next((reason for name, reason in checks.items() if settings.get(name)), None)


def beyond_low_rank(settings: dict[str, Any]) -> str | None:
    """Why an adapter that can be served live is more than a sum of low-rank products, None when it is not."""
    if settings.get("use_dora"):
        return "it is a DoRA adapter"
    return "it holds whole modules (modules_to_save, additional_target)" if settings.get("modules_to_save") else None


def other_base(path: Path, model_config: Any = None) -> str | None:
    """What an adapter's folder says of the base that its settings do not: it must be made for this adapter.

    Args:
        path: the folder.
        model_config: of the base, which may be as the adapter wants it already.

    Returns:
        The reason; None where the usual base is meant.
    """
    if (path / loftq.START).is_file():
        return "started from the rounding error of a quantised base (loftq_init)"
    kept = rope.kept_with(path)
    if kept is None:
        return None
    is_so = model_config is not None and kept["rope_parameters"] == model_config.get_text_config().rope_parameters
    return None if is_so else "was trained on stretched positions (rope_scaling)"


def read_settings(path: Path) -> dict[str, Any]:
    """adapter_config.json of a folder.

    Raises:
        ModelError: there is none, or it cannot be read.
    """
    try:
        settings = json.loads((path / "adapter_config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(f"{path} holds no readable adapter_config.json; give the folder a training wrote") from error
    if not isinstance(settings, dict):
        raise ModelError(f"{path / 'adapter_config.json'} holds no object")
    return settings


def read_weights(path: Path) -> dict[str, torch.Tensor]:
    """The tensors of an adapter, by names of the base's modules.

    Raises:
        ModelError: the file is not there, cannot be read, or is empty.
    """
    from safetensors.torch import load_file

    file = path / "adapter_model.safetensors"
    if not file.is_file():
        raise ModelError(f"adapter {path} has no adapter_model.safetensors")
    try:
        tensors = load_file(str(file))
    except Exception as error:  # safetensors raises a type of its own
        raise ModelError(f"{file} cannot be read: {error}") from error
    if not tensors:
        raise ModelError(f"adapter {path} holds no weights")
    return {key.removeprefix(_PREFIX): tensor for key, tensor in tensors.items()}


def low_rank_parts(tensors: dict[str, torch.Tensor]) -> tuple[dict[str, dict[str, torch.Tensor]], dict[str, Any]]:
    """Sorts an adapter's tensors: parts `A`, `B`, `magnitude_vector` of each module, and all others by their names."""
    parts: dict[str, dict[str, torch.Tensor]] = {}
    others = {}
    for key, tensor in tensors.items():
        match = _WEIGHT.match(key)
        if match is None:
            others[key] = tensor
        else:
            parts.setdefault(match["module"], {})[match["part"]] = tensor
    return parts, others


def scaling_of(settings: dict[str, Any], module: str, rank: int) -> float:
    """As peft does: a pattern is the end of a module's name, or a regular expression for it."""

    def of(patterns: dict[str, float], default: float) -> float:
        found = (value for key, value in patterns.items() if re.match(rf"(.*\.)?({key})$", module))
        return next(found, default)

    alpha = of(settings.get("alpha_pattern") or {}, settings.get("lora_alpha", 8))
    return alpha / (math.sqrt(rank) if settings.get("use_rslora") else rank)


def load_live_adapter(name: str, path: Path, base: Any, version: int) -> LiveAdapter:
    """Reads an adapter for a base model; the base is not changed.

    Args:
        name: what requests will call it.
        path: a folder with adapter_config.json and adapter_model.safetensors.
        base: the transformers model.
        version: never used before.

    Raises:
        ModelError: the files are not there or do not fit, or the adapter needs more than live adapters can.
    """
    settings = read_settings(path)
    reason = obstacle(settings)
    if reason:
        raise ModelError(f"adapter {path} cannot be served beside others: {reason}; {INSTEAD}")
    other = other_base(path, base.config)
    if other:
        raise ModelError(f"adapter {path} {other}; {INSTEAD}")
    parts, others = low_rank_parts(read_weights(path))
    targets = dict(base.named_modules())
    modules: dict[str, LowRank | nn.Module] = {}
    try:
        for module, whole in _whole_modules(others, settings, targets).items():
            modules[module] = _in_place_of(module, targets, whole)
        for module, pair in parts.items():
            modules[module] = _low_rank(module, targets, pair, settings)
        _check_base(others, targets)
    except ModelError as error:
        raise ModelError(f"adapter {path} {error}") from error
    return LiveAdapter(name, path, version, modules)


def _whole_modules(
    others: dict[str, torch.Tensor], settings: dict[str, Any], targets: dict[str, nn.Module]
) -> dict[str, dict[str, torch.Tensor]]:
    """Tensors of modules that stand in the place of the base's, by module and name within it."""
    saved = tuple(settings.get("modules_to_save") or ())
    found: dict[str, dict[str, torch.Tensor]] = {}
    for key, tensor in others.items():
        if key.endswith(_OWN_BASE):
            continue
        owner = next((m for m in targets if key.startswith(f"{m}.") and m.endswith(saved)), None) if saved else None
        if owner is None:
            raise ModelError(f"holds {key!r}, which cannot be served beside others; {INSTEAD}")
        found.setdefault(owner, {})[key.removeprefix(f"{owner}.")] = tensor
    return found


def _in_place_of(name: str, targets: dict[str, nn.Module], tensors: dict[str, torch.Tensor]) -> nn.Module:
    """A copy of the base's module with the adapter's weights."""
    target = targets[name]
    if any(True for _ in target.children()):
        raise ModelError(f"replaces {name!r}, which is made of other modules and cannot be served live; {INSTEAD}")
    own = copy.copy(target)
    vars(own).pop("forward", None)  # of a packed layer: it would bring the base's weight
    for store in ("_parameters", "_buffers", "_forward_hooks", "_forward_hooks_with_kwargs"):
        setattr(own, store, copy.copy(getattr(target, store)))
    own._forward_hooks.clear()
    place = next(target.parameters())
    shapes = {key: tuple(parameter.shape) for key, parameter in target.named_parameters()}
    if {key: tuple(tensor.shape) for key, tensor in tensors.items()} != shapes:
        raise ModelError(f"does not fit this base model: {name!r} has the weights {shapes}")
    for key, tensor in tensors.items():
        own._parameters[key] = nn.Parameter(tensor.to(place.device, place.dtype), requires_grad=False)
    return own.eval()


def _low_rank(
    name: str, targets: dict[str, nn.Module], parts: dict[str, torch.Tensor], settings: dict[str, Any]
) -> LowRank:
    target = targets.get(name)
    if target is None or not {"A", "B"} <= set(parts):
        raise ModelError(f"does not fit this base model: it has weights for {name!r}")
    a, b = parts["A"], parts["B"]
    shape = (getattr(target, "in_features", a.shape[1]), getattr(target, "out_features", b.shape[0]))
    if (a.shape[1], b.shape[0]) != shape or a.shape[0] != b.shape[1]:
        raise ModelError(
            f"does not fit this base model: {name!r} has the shape {shape}, "
            f"the adapter's parts {tuple(a.shape)} and {tuple(b.shape)}"
        )
    device = next(target.parameters()).device
    # Half precision is computed in float32, as peft does.
    dtype = torch.float32 if a.dtype in (torch.float16, torch.bfloat16) else a.dtype
    low = LowRank(a.to(device, dtype), b.to(device, dtype), scaling_of(settings, name, len(a)))
    magnitude = parts.get("magnitude_vector")
    return low if magnitude is None else _with_norm(name, target, low, magnitude.to(device, dtype))


def _with_norm(name: str, target: nn.Module, low: LowRank, magnitude: torch.Tensor) -> LowRank:
    weight = getattr(target, "weight", None)
    if not isinstance(target, nn.Linear) or weight is None or not weight.is_floating_point():
        raise ModelError(f"is a DoRA adapter, and {name!r} is no plain linear layer; {INSTEAD}")
    norm = (weight.detach().to(low.a.dtype) + low.scaling * (low.b @ low.a)).norm(dim=1)
    return LowRank(low.a, low.b, low.scaling, magnitude / norm)


def _check_base(others: dict[str, torch.Tensor], targets: dict[str, nn.Module]) -> None:
    """The base's own weights, where peft wrote them beside the adapter, must be those of this base."""
    for key, tensor in others.items():
        if key.endswith(_OWN_BASE):
            weight = getattr(targets.get(key.removesuffix(_OWN_BASE)), "weight", None)
            if weight is None or not torch.equal(weight.detach().cpu().float(), tensor.float()):
                raise ModelError(f"does not fit this base model: {key!r} in it is another; {INSTEAD}")
