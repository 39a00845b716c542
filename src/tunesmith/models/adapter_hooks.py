"""Live adapters in a forward pass: each adds to, or stands in for, modules of the base, for its own tokens alone.

A forward pass runs over tokens of many requests laid flat; which of them belong to which adapter is told by spans.
peft applies one adapter to a batch, or one to each padded row, which a flat line of tokens does not have.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from tunesmith.core.errors import ModelError
from tunesmith.models.live_adapter import INSTEAD, LiveAdapter, LowRank


@dataclass(frozen=True, slots=True)
class Span:
    """Tokens [begin, end) of a flat forward pass that one adapter answers; None: the base alone."""

    begin: int
    end: int
    adapter: LiveAdapter | None


class AdapterHooks:
    """Hooks on a base model's modules.

    Args:
        base: the transformers model; a module gets a hook when an adapter first needs it.
    """

    def __init__(self, base: nn.Module) -> None:
        self._modules = dict(base.named_modules())
        self._head = base.get_output_embeddings()
        self._handles: dict[str, Any] = {}
        self._spans: Sequence[Span] = ()
        self._n_tokens = 0
        self._kept: Sequence[int] | None = None
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
    def active(self, spans: Sequence[Span], n_tokens: int, kept: Sequence[int] | None = None) -> Iterator[None]:
        """Within it, a forward pass uses the adapters that the spans name.

        Args:
            spans: of the flat tokens.
            n_tokens: flat tokens in the pass.
            kept: those that the head sees, in its order; None: all.
        """
        self._spans, self._n_tokens, self._kept = [span for span in spans if span.adapter], n_tokens, kept
        try:
            yield
        finally:
            self._spans, self._kept = (), None

    @contextmanager
    def everywhere(self, adapter: LiveAdapter | None) -> Iterator[None]:
        """Within it, every forward pass uses one adapter for all its tokens."""
        self._everywhere = adapter
        try:
            yield
        finally:
            self._everywhere = None

    def _hook(self, name: str) -> Any:
        def change(module: nn.Module, args: tuple[torch.Tensor, ...], output: torch.Tensor) -> torch.Tensor:
            if not self._spans and self._everywhere is None:
                return output
            x, flat = _by_token(args[0]), _by_token(output)
            for span in self._spans_for(name, module, len(x)):
                part = span.adapter.modules.get(name) if span.adapter else None
                place = slice(span.begin, span.end)
                if isinstance(part, LowRank):
                    flat[place] = _added(part, module, x[place], flat[place])  # summed wide, then rounded once
                elif part is not None:
                    flat[place] = part(x[place]).to(flat.dtype)
            return flat.view(output.shape)

        return change

    def _spans_for(self, name: str, module: nn.Module, n_seen: int) -> Sequence[Span]:
        if self._everywhere is not None:
            return [Span(0, n_seen, self._everywhere)]
        if module is self._head and self._kept is not None:
            owners = [next((s.adapter for s in self._spans if s.begin <= i < s.end), None) for i in self._kept]
            return [Span(row, row + 1, owner) for row, owner in enumerate(owners) if owner]
        if n_seen != self._n_tokens:
            raise ModelError(
                f"module {name!r} sees {n_seen} of {self._n_tokens} tokens, so adapters on it cannot be served "
                f"beside others; {INSTEAD}"
            )
        return self._spans


def _by_token(tensor: torch.Tensor) -> torch.Tensor:
    """(B, T, ...) or (T, H) numbers, or (B, T) ids, with one row for each token."""
    if tensor.is_floating_point() and tensor.dim() == 2:
        return tensor
    return tensor.reshape(-1, *tensor.shape[2:])


def _added(part: LowRank, module: nn.Module, x: torch.Tensor, output: torch.Tensor) -> torch.Tensor:
    """The module's output (n, out) with an adapter's part, from its input (n, in)."""
    added = (x.to(part.a.dtype) @ part.a.T) @ part.b.T * part.scaling
    if part.norm_scale is None:
        return output + added
    bias = getattr(module, "bias", None)
    if bias is None:
        return (output + added) * part.norm_scale
    return (output - bias + added) * part.norm_scale + bias
