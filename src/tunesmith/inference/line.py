"""A forward pass over pieces of many sequences laid end to end, each over its own cache. hf.py says what goes in."""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from tunesmith.core.log import get_logger
from tunesmith.inference.engine import GenerationRequest
from tunesmith.inference.keys_values import KeyValues
from tunesmith.inference.sampling import make_generator
from tunesmith.inference.sequence import Chunk
from tunesmith.inference.sequence import Sequence as Row
from tunesmith.models import attention_cached
from tunesmith.models.adapter_hooks import AdapterHooks, Span
from tunesmith.models.forward import base_model_of

logger = get_logger(__name__)

_EXACT, _ROUGH = 1e-3, 5e-2
"""Allowed relative error of the probe in float32 and in half precision; a wrong mask or cache gives 0.1 and more."""


@dataclass(frozen=True, slots=True)
class _LineRow:
    """A chunk's place in the line."""

    begin: int
    end: int
    start: int
    values: KeyValues

    def extend(self, layer: int, key: torch.Tensor, value: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return self.values.write(layer, self.start, key, value)


class LineForward:
    """Runs chunks of sequences through a model without padding.

    Args:
        model: a transformers or peft model.
        hooks: live adapters.

    Attributes:
        joins_midway: sequences may come while others are under way.
        bytes_per_token: of keys and values, known after the probe.
    """

    joins_midway = True

    def __init__(self, model: nn.Module, hooks: AdapterHooks) -> None:
        attention_cached.register()
        self._model = model
        self._hooks = hooks
        base = base_model_of(model)
        self._device = base.get_input_embeddings().weight.device
        self._configs = _attention_configs(base)
        self._keeps = "logits_to_keep" in inspect.signature(base.forward).parameters
        own = base.config._attn_implementation
        self._implementation = attention_cached.CACHED_EAGER if own == "eager" else attention_cached.CACHED
        self.bytes_per_token = 0

    def works(self) -> bool:
        """Whether this model's answers are the same this way; by numbers on a probe, not by name."""
        config = base_model_of(self._model).config
        text = config.get_text_config()
        if getattr(config, "is_encoder_decoder", False) or getattr(text, "attention_chunk_size", None):
            return False
        try:
            error = self._probe(text.vocab_size)
        except Exception as reason:  # any model code may be behind it
            logger.debug("no forward pass over a line: %s", reason)
            return False
        allowed = _EXACT if base_model_of(self._model).dtype == torch.float32 else _ROUGH
        logger.debug("probe of the forward pass over a line: relative error %.2g", error)
        return error < allowed

    @torch.inference_mode()
    def _probe(self, vocab_size: int) -> float:
        """Largest relative error of two short sequences in pieces against each alone in one."""
        rng = np.random.default_rng(0)
        rows = [_probe_row(rng.integers(0, vocab_size, n).tolist()) for n in (9, 6)]
        expected = [
            self._model(input_ids=torch.tensor(row.prompt[None], device=self._device), use_cache=False).logits[0, -1]
            for row in rows
        ]
        self.forward([Chunk(rows[0], 4)])
        rows[0].n_cached = 4
        self.forward([Chunk(rows[0], 8), Chunk(rows[1], 3)])
        rows[0].n_cached, rows[1].n_cached = 8, 3
        logits = self.forward([Chunk(rows[1], 6), Chunk(rows[0], 9)])
        held = rows[0].values
        self.bytes_per_token = held.n_bytes // held.capacity
        pairs = zip(logits, (expected[1], expected[0]), strict=True)
        return max(float((got - want).norm() / want.norm()) for got, want in pairs)

    @torch.inference_mode()
    def forward(self, chunks: Sequence[Chunk], counts: Sequence[int] | None = None) -> torch.Tensor:
        """Runs the model on chunks and stores their keys and values.

        Args:
            chunks: of different sequences.
            counts: of how many of its last tokens each chunk wants logits; None: of one where the chunk `is_last`.

        Returns:
            (N, V) logits, chunk after chunk in the order given.
        """
        # Tokens of one adapter stand together: its part is one product for all of them.
        order = sorted(range(len(chunks)), key=lambda i: chunks[i].sequence.key or 0)
        ids: list[np.ndarray] = []
        positions: list[np.ndarray] = []
        rows: list[_LineRow] = []
        spans: list[Span] = []
        wanted: dict[int, range] = {}
        place = 0
        for i in order:
            chunk, sequence = chunks[i], chunks[i].sequence
            sequence.values.reserve(chunk.end + len(chunk.draft))
            rows.append(_LineRow(place, place + chunk.n_tokens, sequence.n_cached, sequence.values))
            ids.append(chunk.ids())
            positions.append(np.arange(sequence.n_cached, sequence.n_cached + chunk.n_tokens))
            _extend_spans(spans, Span(place, place + chunk.n_tokens, sequence.adapter))
            place += chunk.n_tokens
            count = chunk.n_logits if counts is None else counts[i]
            wanted[i] = range(place - count, place)
        places = [token for i in range(len(chunks)) for token in wanted[i]]
        kept = places or [place - 1]
        with self._switched(), self._hooks.active(spans, place, kept if self._keeps else None):
            return self._run(np.concatenate(ids), np.concatenate(positions), rows, kept)[: len(places)]

    def _run(self, ids: np.ndarray, positions: np.ndarray, rows: list[_LineRow], kept: list[int]) -> torch.Tensor:
        keep = torch.tensor(kept, device=self._device)
        output = self._model(
            input_ids=torch.from_numpy(ids)[None].to(self._device),
            position_ids=torch.from_numpy(positions)[None].to(self._device),
            use_cache=False,
            cached_rows=rows,
            **({"logits_to_keep": keep} if self._keeps else {}),
        )
        return output.logits[0] if self._keeps else output.logits[0, keep]

    @contextlib.contextmanager
    def _switched(self) -> Iterator[None]:
        """The model's attention is ours only while it runs here: others may use the same model between steps."""
        own = [config._attn_implementation_internal for config in self._configs]
        try:
            for config in self._configs:
                config._attn_implementation_internal = self._implementation
            yield
        finally:
            for config, name in zip(self._configs, own, strict=True):
                config._attn_implementation_internal = name

    def check(self, sequence: Row) -> None:
        """Runs a sequence for its errors alone."""
        self.forward([Chunk(sequence, sequence.length)])

    def release(self, sequence: Row) -> None:
        """Nothing is kept here: keys and values are the sequence's own."""


def probe_sequence(n_tokens: int, adapter: Any = None) -> Row:
    """A sequence that is nobody's, to try a forward pass with."""
    return _probe_row(list(range(n_tokens)), adapter)


def _probe_row(ids: list[int], adapter: Any = None) -> Row:
    return Row(0, 0, GenerationRequest(ids), 1, generator=make_generator(0), adapter=adapter)


def _extend_spans(spans: list[Span], new: Span) -> None:
    if spans and spans[-1].adapter is new.adapter:
        new = Span(spans.pop().begin, new.end, new.adapter)
    spans.append(new)


def _attention_configs(base: nn.Module) -> list[Any]:
    """Every configuration that an attention layer of the model reads its implementation from."""
    found = {id(base.config): base.config}
    for module in base.modules():
        config = getattr(module, "config", None)
        if hasattr(config, "_attn_implementation_internal"):
            found[id(config)] = config
    return list(found.values())
