"""Guesses of the tokens to come, which the model verifies in one forward pass: answers stay the same, steps get fewer.

Who guesses: the text itself (prompt lookup), or a smaller model. How guesses are verified is hf.py's work.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import torch

from tunesmith.core.errors import ModelError
from tunesmith.inference.engine import GenerationRequest
from tunesmith.inference.keys_values import common_prefix
from tunesmith.inference.line import LineForward
from tunesmith.inference.sampling import make_generator
from tunesmith.inference.sequence import Chunk
from tunesmith.inference.sequence import Sequence as Row
from tunesmith.models.adapter_hooks import AdapterHooks


class Drafter(Protocol):
    """Who guesses."""

    @property
    def n_bytes(self) -> int:
        """Memory that it keeps for answers under way."""
        ...

    def draft(self, rows: Sequence[Row], room: Sequence[int]) -> list[list[int]]:
        """Tokens that may follow each row's newest, no more than `room` and the row's `n_trusted`; may be none."""
        ...

    def release(self, row: Row) -> None:
        """The row is done."""
        ...


def trust(n_drafted: int, n_accepted: int) -> int:
    """How long a row's next draft may be: twice as long after one that was right, else one more than was right.

    A wrong guess costs the work of a token; where the text does not repeat itself, one guess a step is what it costs.
    """
    return 2 * n_drafted if n_accepted == n_drafted else n_accepted + 1


def _bounded(row: Row, room: int, n_tokens: int) -> int:
    return max(0, min(room, n_tokens if row.n_trusted is None else row.n_trusted, n_tokens))


class PromptLookup:
    """The text so far is searched for its own end; what followed there may follow here.

    Args:
        n_tokens: of a draft, at most.
        max_ngram: tokens of the end that are searched for; where they are not found, one less, down to one.
    """

    n_bytes = 0

    def __init__(self, n_tokens: int, max_ngram: int = 2) -> None:
        self._n_tokens = n_tokens
        self._max_ngram = max_ngram

    def draft(self, rows: Sequence[Row], room: Sequence[int]) -> list[list[int]]:
        """What followed the newest place that has a whole draft behind it, or the oldest place."""
        return [self._find(row, _bounded(row, space, self._n_tokens)) for row, space in zip(rows, room, strict=True)]

    def _find(self, row: Row, count: int) -> list[int]:
        ids = row.ids(0, row.length)
        for n in range(min(self._max_ngram, len(ids) - 1) if count else 0, 0, -1):
            windows = np.lib.stride_tricks.sliding_window_view(ids[:-1], n)
            starts: np.ndarray = np.flatnonzero((windows == ids[-n:]).all(axis=1)) + n
            if len(starts):
                whole = starts[starts + count <= len(ids)]
                start = whole[-1] if len(whole) else starts[0]
                return list(map(int, ids[start : start + count]))
        return []

    def release(self, row: Row) -> None:
        """Nothing is kept."""


class Assistant:
    """A smaller model with the same tokens goes ahead, greedily.

    Args:
        model: a transformers model, on its device.
        n_tokens: of a draft, at most.

    Raises:
        ModelError: the model cannot run rows end to end over a cache.
    """

    def __init__(self, model: Any, n_tokens: int) -> None:
        self._forward = LineForward(model.eval(), AdapterHooks(model))
        if not self._forward.works():
            raise ModelError("assistant_model: this model runs in padded batches and cannot draft; name another")
        self._n_tokens = n_tokens
        self._context: int | None = getattr(model.config.get_text_config(), "max_position_embeddings", None)
        self._shadows: dict[int, Row] = {}

    @property
    def n_bytes(self) -> int:
        """Keys and values of the assistant."""
        return sum(shadow.values.n_bytes for shadow in self._shadows.values())

    @torch.inference_mode()
    def draft(self, rows: Sequence[Row], room: Sequence[int]) -> list[list[int]]:
        """What the assistant would say; all rows together, a token a pass."""
        counts = [
            self._within(row, _bounded(row, space, self._n_tokens)) for row, space in zip(rows, room, strict=True)
        ]
        shadows = [self._shadow(row) for row in rows]
        for step in range(max(counts)):
            going = [shadow for shadow, count in zip(shadows, counts, strict=True) if step < count]
            logits = self._forward.forward([Chunk(shadow, shadow.length) for shadow in going])
            for shadow, token_id in zip(going, logits.argmax(dim=-1).tolist(), strict=True):
                shadow.n_cached = shadow.length
                shadow.answer.append(token_id)
        return [list(shadow.answer[len(row.answer) :]) for row, shadow in zip(rows, shadows, strict=True)]

    def _within(self, row: Row, count: int) -> int:
        return count if self._context is None else max(0, min(count, self._context - row.length))

    def _shadow(self, row: Row) -> Row:
        """The row as the assistant knows it: what it said and the model did not is forgotten."""
        shadow = self._shadows.get(id(row))
        if shadow is None:
            request = GenerationRequest(row.request.prompt_ids)
            generator = make_generator(0)
            shadow = Row(row.request_id, row.index, request, row.budget, generator=generator)
            self._shadows[id(row)] = shadow
        known = row.ids(0, row.length)
        shadow.n_cached = common_prefix(shadow.ids(0, shadow.n_cached), known)
        shadow.answer = list(row.answer)
        return shadow

    def release(self, row: Row) -> None:
        """Forgets it."""
        self._shadows.pop(id(row), None)
