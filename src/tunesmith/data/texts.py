"""Plain texts (pt): ids with an end token behind each text, and items of at most cutoff_len tokens made of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from tunesmith.core.types import Segment, Text, TokenizedRow
from tunesmith.data.cache import digest
from tunesmith.data.rows import TokenizedRows, TrainRows, as_item
from tunesmith.data.tokenize import Encoder

_TEXT_ENDS = {"llama3": "<|end_of_text|>"}
"""Families whose template makes the end of a turn the tokenizer's eos, and what ends a text there."""


def text_end(encoder: Encoder) -> int | None:
    """The token behind each text."""
    name = _TEXT_ENDS.get(encoder.template.name, "")
    found = encoder.tokenizer.get_added_vocab().get(name, encoder.tokenizer.eos_token_id)
    return None if found is None else int(found)


def text_start(tokenizer: Any) -> int | None:
    """The token that a sequence begins with, where the tokenizer puts one there."""
    if not getattr(tokenizer, "add_bos_token", False) or tokenizer.bos_token_id is None:
        return None
    return int(tokenizer.bos_token_id)


def tokenize_texts(encoder: Encoder, texts: Sequence[Text]) -> list[TokenizedRow]:
    """Each text as one row of any length, all of it trained; names of special tokens in a text stay plain text."""
    end = text_end(encoder)
    tail = [] if end is None else [end]
    encoded = encoder.encode([[Segment(text.text, trained=True, literal=False)] for text in texts])
    return [
        TokenizedRow(ids + tail, labels + tail, text.source) for text, (ids, labels) in zip(texts, encoded, strict=True)
    ]


def pieces_of(row: TokenizedRow, size: int, start: int | None) -> list[TokenizedRow]:
    """A text cut into sequences of at most `size` tokens; no token is lost but a last one that nothing predicts.

    Args:
        row: the text.
        size: tokens of the longest sequence.
        start: goes before each piece, without loss; None: nothing does.
    """
    head = [] if start is None else [start]
    room = size - len(head)
    pieces = [row.input_ids[first : first + room] for first in range(0, len(row.input_ids), room)]
    return [TokenizedRow(head + ids, head + ids, row.source) for ids in pieces if len(head + ids) > 1]


class TextRows(TrainRows):
    """Texts as items of at most `size` tokens.

    Packed, texts are laid one behind the other and cut every `size` tokens; a text sees the ones before it in its item,
    with an end token between. Unpacked, an item is one text, in as many sequences as it needs.

    Args:
        rows: the texts.
        size: tokens of the longest sequence.
        start: token that each sequence begins with, or None.
        is_packed: whether texts share items.
    """

    def __init__(self, rows: TokenizedRows, size: int, start: int | None, *, is_packed: bool) -> None:
        super().__init__(rows)
        self._size, self._start, self._is_packed = size, start, is_packed
        self._room = size - (start is not None)

    def __len__(self) -> int:
        if not self._is_packed:
            return len(self.rows)
        whole, rest = divmod(self.rows.n_tokens, self._room)
        return whole + (rest + (self._start is not None) > 1)

    def __getitem__(self, index: Any) -> Any:
        place = range(len(self))[index]
        if not self._is_packed:
            pieces = pieces_of(self.rows[place], self._size, self._start)
            return as_item(pieces, [place] * len(pieces))
        first = place * self._room
        ids = [] if self._start is None else [self._start]
        ids += self._between(first, min(first + self._room, self.rows.n_tokens))
        return as_item([TokenizedRow(ids, list(ids))], [self._row_at(first)])

    def _row_at(self, token: int) -> int:
        return int(np.searchsorted(self.rows.offsets, token, side="right")) - 1

    def _between(self, first: int, stop: int) -> list[int]:
        """Token ids between two places of all texts laid end to end."""
        found: list[int] = []
        offsets = self.rows.offsets
        row = self._row_at(first)
        while first < stop:
            begin, end = int(offsets[row]), int(offsets[row + 1])
            until = min(end, stop)
            found += self.rows.read_part(row, first - begin, until - begin)[0].tolist()
            first, row = until, row + 1
        return found

    def digest(self) -> str:
        """Identity of the items in their order."""
        return digest("texts", super().digest(), self._size, self._start, self._is_packed)

    @property
    def tokens(self) -> Any:
        """Tokens of each item, without the ones that begin sequences."""
        if not self._is_packed:
            return self.rows.lengths
        starts: Any = np.arange(len(self), dtype=np.int64) * self._room
        return np.minimum(starts + self._room, self.rows.n_tokens) - starts

    @property
    def example(self) -> TokenizedRow:
        """The first item, as it is shown before training."""
        ids = self[0]["input_ids"][: self._size]
        return TokenizedRow(ids, list(ids))

    @property
    def longest(self) -> int:
        """Tokens of the longest sequence there may be."""
        return min(self._size, self.rows.n_tokens + 1) if len(self.rows) else 0

    @property
    def trained_tokens(self) -> int:
        """Tokens that carry loss: all but the first of each sequence."""
        tokens, room = self.tokens, self._room
        sequences = len(self) if self._is_packed else int((-(-tokens // room)).sum())
        return int(tokens.sum()) - (0 if self._start is not None else sequences)
