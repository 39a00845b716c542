"""The forward pass for models that take no line of rows: left-padded batches over a cache of transformers.

A batch begins together and rows leave it one by one; new ones wait until it is through.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from tunesmith.core.errors import ModelError
from tunesmith.inference.sequence import Chunk
from tunesmith.inference.sequence import Sequence as Row
from tunesmith.models.adapter_hooks import AdapterHooks, Span
from tunesmith.models.forward import base_model_of
from tunesmith.models.live_adapter import LiveAdapter


class PaddedForward:
    """Runs whole prompts, then single tokens, of one batch.

    Args:
        model: a transformers or peft model.
        hooks: live adapters.
        pad_token_id: fills the left of shorter prompts; any valid id does, it is masked.
        keeps_values: False: every pass reads all tokens of its rows.

    Attributes:
        joins_midway: sequences may not come while others are under way.
        bytes_per_token: unknown.
    """

    joins_midway = False
    bytes_per_token = 0

    def __init__(
        self, model: nn.Module, hooks: AdapterHooks, pad_token_id: int = 0, *, keeps_values: bool = True
    ) -> None:
        self._keeps_values = keeps_values
        self._model = model
        self._hooks = hooks
        self._pad = pad_token_id
        base = base_model_of(model)
        self._device = base.get_input_embeddings().weight.device
        takes = "logits_to_keep" in inspect.signature(base.forward).parameters
        self._last_only: dict[str, Any] = {"logits_to_keep": 1} if takes else {}
        self._rows: list[Row] = []
        self._mask = torch.zeros(0, 0)
        self._cache: Any = None

    @torch.inference_mode()
    def forward(self, chunks: Sequence[Chunk]) -> torch.Tensor:
        """As `LineForward.forward`; all chunks are whole rows, or all are single tokens of the batch's rows.

        There are no drafts.
        """
        given = [chunk.sequence for chunk in chunks]
        logits = self._begin(given) if not given[0].n_cached else self._go_on(given)
        place = {id(row): i for i, row in enumerate(self._rows)}
        return logits[[place[id(row)] for row in given]]

    def _begin(self, rows: list[Row]) -> torch.Tensor:
        width = max(row.length for row in rows)
        ids = torch.full((len(rows), width), self._pad)
        self._mask = torch.zeros((len(rows), width), dtype=torch.long, device=self._device)
        for i, row in enumerate(rows):
            ids[i, width - row.length :] = torch.from_numpy(row.ids(0, row.length))
            self._mask[i, width - row.length :] = 1
        self._rows, self._cache = rows, None
        return self._run(ids)

    def _go_on(self, rows: list[Row]) -> torch.Tensor:
        """Drops rows that left and runs the others on their newest token."""
        if len(rows) < len(self._rows):
            places = [i for i, row in enumerate(self._rows) if row in rows]
            self._rows = [self._rows[i] for i in places]
            kept = torch.tensor(places, device=self._device)
            self._mask = self._mask[kept]
            self._cache.batch_select_indices(kept)
        self._mask = torch.cat([self._mask, self._mask.new_ones((len(self._rows), 1))], dim=1)
        return self._run(torch.tensor([row.answer[-1:] for row in self._rows]))

    def _run(self, ids: torch.Tensor) -> torch.Tensor:
        """One forward pass; positions count real tokens only, so that padding changes nothing."""
        width = ids.shape[1]
        positions = (self._mask.cumsum(-1) - 1).clamp(min=0)[:, -width:]
        spans = [Span(i * width, (i + 1) * width, row.adapter) for i, row in enumerate(self._rows)]
        # Without `logits_to_keep` the head sees every token, as all modules do.
        kept = [span.end - 1 for span in spans] if self._last_only else None
        with self._hooks.active(spans, ids.numel(), kept):
            output = self._model(
                input_ids=ids.to(self._device),
                # Without padding the mask says nothing, and attention kernels are faster when there is none.
                attention_mask=None if bool(self._mask.all()) else self._mask,
                position_ids=positions,
                past_key_values=self._cache,
                use_cache=self._keeps_values,
                **self._last_only,
            )
        self._cache = getattr(output, "past_key_values", None)
        if self._cache is None and self._keeps_values:
            raise ModelError("this model gives back no cache of keys and values; set use_kv_cache: false")
        return output.logits[:, -1]

    @torch.inference_mode()
    def whole(
        self, rows: Sequence[Sequence[int]], counts: Sequence[int], adapter: LiveAdapter | None
    ) -> list[torch.Tensor]:
        """Logits (count, V) of the last tokens of each row, of `rows` run together from their beginnings, no cache."""
        width = max(map(len, rows))
        ids = torch.full((len(rows), width), self._pad)
        for i, row in enumerate(rows):
            ids[i, : len(row)] = torch.tensor(row)
        mask = (torch.arange(width) < torch.tensor([len(row) for row in rows])[:, None]).long()
        with self._hooks.active([Span(0, ids.numel(), adapter)], ids.numel()):
            output = self._model(
                input_ids=ids.to(self._device),
                attention_mask=None if bool(mask.all()) else mask.to(self._device),
                use_cache=False,
            )
        pairs = zip(output.logits, rows, counts, strict=True)
        return [logits[len(row) - count : len(row)] for logits, row, count in pairs]

    def check(self, sequence: Row) -> None:
        """Runs a sequence for its errors alone."""
        held = self._rows, self._mask, self._cache
        try:
            with torch.inference_mode():
                self._begin([sequence])
        finally:
            self._rows, self._mask, self._cache = held

    def release(self, sequence: Row) -> None:
        """Frees the cache with the last row; earlier ones are dropped by the next forward pass."""
        if all(row is sequence or row.finish_reason for row in self._rows):
            self._rows, self._cache = [], None
