"""LoRA adapters that come and go over a base that stays as it is, several in one forward pass. Serving only.

A forward pass runs over tokens of many requests laid flat; which of them belong to which adapter is told by spans.
peft applies one adapter to a batch, or one to each padded row, which a flat line of tokens does not have.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from tunesmith.core.errors import ModelError
from tunesmith.models import rope
from tunesmith.models.pissa import is_pissa

_PREFIX = "base_model.model."
_WEIGHT = re.compile(r"(?P<module>.+)\.lora_(?P<part>[AB])\.weight$")

_INSTEAD = "name it alone in adapter_name_or_path at the start, or merge it with tunesmith export"


@dataclass(frozen=True, slots=True)
class LowRank:
    """What an adapter adds to one module: `scaling * B A x`.

    Attributes:
        a: (r, in).
        b: (out, r).
        scaling: alpha / r, or alpha / sqrt(r) with rslora.
    """

    a: torch.Tensor
    b: torch.Tensor
    scaling: float


@dataclass(frozen=True, slots=True, eq=False)
class LiveAdapter:
    """A LoRA adapter in memory.

    Attributes:
        name: what requests call it.
        path: its folder.
        version: differs between any two that an engine ever loaded; names may come again.
        modules: module name of the base to what is added there.
    """

    name: str
    path: Path
    version: int
    modules: dict[str, LowRank]


@dataclass(frozen=True, slots=True)
class Span:
    """Tokens [begin, end) of a flat forward pass that one adapter answers; None: the base alone."""

    begin: int
    end: int
    adapter: LiveAdapter | None


def obstacle(settings: dict[str, Any]) -> str | None:
    """Why an adapter_config.json cannot be served live, None when it can."""
    checks = {
        "use_dora": "it is a DoRA adapter",
        "modules_to_save": "it holds whole modules (modules_to_save, additional_target)",
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


def _scaling(settings: dict[str, Any], module: str, rank: int) -> float:
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
    from safetensors.torch import load_file

    settings = read_settings(path)
    reason = obstacle(settings)
    if reason:
        raise ModelError(f"adapter {path} cannot be served beside others: {reason}; {_INSTEAD}")
    kept = rope.kept_with(path)
    if kept is not None and kept["rope_parameters"] != base.config.get_text_config().rope_parameters:
        raise ModelError(f"adapter {path} was trained on stretched positions (rope_scaling); {_INSTEAD}")
    weights = path / "adapter_model.safetensors"
    if not weights.is_file():
        raise ModelError(f"adapter {path} has no adapter_model.safetensors")
    try:
        tensors = load_file(str(weights))
    except Exception as error:  # safetensors raises a type of its own
        raise ModelError(f"{weights} cannot be read: {error}") from error
    pairs: dict[str, dict[str, torch.Tensor]] = {}
    for key, tensor in tensors.items():
        match = _WEIGHT.match(key.removeprefix(_PREFIX))
        if match is None:
            raise ModelError(f"adapter {path} holds {key!r}, which cannot be served beside others; {_INSTEAD}")
        pairs.setdefault(match["module"], {})[match["part"]] = tensor
    if not pairs:
        raise ModelError(f"adapter {path} holds no weights")
    targets = dict(base.named_modules())
    modules = {}
    for module, pair in pairs.items():
        target = targets.get(module)
        if target is None or set(pair) != {"A", "B"}:
            raise ModelError(f"adapter {path} does not fit this base model: it has weights for {module!r}")
        if target is base.get_output_embeddings() or target is base.get_input_embeddings():
            raise ModelError(f"adapter {path} changes {module!r}, which cannot be served beside others; {_INSTEAD}")
        try:
            modules[module] = _low_rank(target, pair["A"], pair["B"], _scaling(settings, module, len(pair["A"])))
        except ModelError as error:
            raise ModelError(f"adapter {path} does not fit this base model: {module!r} {error}") from error
    return LiveAdapter(name, path, version, modules)


def _low_rank(target: nn.Module, a: torch.Tensor, b: torch.Tensor, scaling: float) -> LowRank:
    shape = (getattr(target, "in_features", a.shape[1]), getattr(target, "out_features", b.shape[0]))
    if (a.shape[1], b.shape[0]) != shape or a.shape[0] != b.shape[1]:
        raise ModelError(f"has the shape {shape}, the adapter's parts {tuple(a.shape)} and {tuple(b.shape)}")
    device = next(target.parameters()).device
    # Half precision is computed in float32, as peft does.
    dtype = torch.float32 if a.dtype in (torch.float16, torch.bfloat16) else a.dtype
    return LowRank(a.to(device, dtype), b.to(device, dtype), scaling)


class AdapterHooks:
    """Adds adapters' parts to the outputs of a base model's modules while a forward pass runs.

    Args:
        base: the transformers model; a module gets a hook when an adapter first needs it.
    """

    def __init__(self, base: nn.Module) -> None:
        self._modules = dict(base.named_modules())
        self._handles: dict[str, Any] = {}
        self._spans: Sequence[Span] = ()
        self._n_tokens = 0
        self._everywhere: LiveAdapter | None = None

    def prepare(self, adapter: LiveAdapter) -> None:
        """Hooks the modules that an adapter needs."""
        for name in adapter.modules:
            if name not in self._handles:
                hook = self._hook(name)
                self._handles[name] = self._modules[name].register_forward_hook(hook)

    def remove(self) -> None:
        """Takes all hooks off."""
        for handle in self._handles.values():
            handle.remove()
        self._handles.clear()

    @contextmanager
    def active(self, spans: Sequence[Span], n_tokens: int) -> Iterator[None]:
        """Within it, a forward pass over `n_tokens` flat tokens uses the adapters that the spans name."""
        self._spans, self._n_tokens = [span for span in spans if span.adapter is not None], n_tokens
        try:
            yield
        finally:
            self._spans = ()

    @contextmanager
    def everywhere(self, adapter: LiveAdapter | None) -> Iterator[None]:
        """Within it, every forward pass uses one adapter for all its tokens."""
        self._everywhere = adapter
        try:
            yield
        finally:
            self._everywhere = None

    def _hook(self, name: str) -> Any:
        def add(module: nn.Module, args: tuple[torch.Tensor, ...], output: torch.Tensor) -> torch.Tensor:
            if not self._spans and self._everywhere is None:
                return output
            x = args[0].reshape(-1, args[0].shape[-1])
            spans = self._spans if self._everywhere is None else [Span(0, len(x), self._everywhere)]
            if self._everywhere is None and len(x) != self._n_tokens:
                raise ModelError(
                    f"module {name!r} sees {len(x)} of {self._n_tokens} tokens, so adapters on it cannot be served "
                    f"beside others; {_INSTEAD}"
                )
            flat = output.reshape(-1, output.shape[-1])
            for span in spans:
                part = span.adapter.modules.get(name) if span.adapter else None
                if part is not None:
                    place = slice(span.begin, span.end)
                    added = (x[place].to(part.a.dtype) @ part.a.T) @ part.b.T * part.scaling
                    flat[place] = flat[place] + added  # summed in the wider dtype, then rounded once
            return flat.view(output.shape)

        return add
