"""Judged answers (kto), each beside the answer to another prompt, from which the KL to the reference is estimated."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from tunesmith.core.types import IGNORE_INDEX, TokenizedRow
from tunesmith.data.cache import digest
from tunesmith.data.rows import TokenizedRows, TrainRows, as_item

LOOK_AHEAD = 64
"""Rows among which one with another prompt is looked for; where there is none, the next row is taken."""


def answer_start(labels: Sequence[int] | Any) -> int:
    """Where the answer of a one-answer row begins."""
    return int(np.argmax(np.asarray(labels) != IGNORE_INDEX))


def prompt_key(row: TokenizedRow) -> bytes:
    """Identity of a row's prompt."""
    ids = np.asarray(row.input_ids[: answer_start(row.labels)], dtype=np.int32)
    return hashlib.blake2b(ids.tobytes(), digest_size=8).digest()


def partner_of(index: int, count: int, key: Callable[[int], bytes | None]) -> int:
    """The row whose answer does not belong to row `index`: the next one with another prompt, round the end.

    Args:
        index: a row.
        count: rows there are.
        key: the identity of a row's prompt; None for a row that cannot be used.
    """
    own, spare = key(index), index
    for step in range(1, min(count, LOOK_AHEAD)):
        place = (index + step) % count
        found = key(place)
        if found is None:
            continue
        if found != own:
            return place
        spare = place if spare == index else spare
    return spare


def with_mismatch(row: TokenizedRow, other: TokenizedRow, cutoff_len: int) -> TokenizedRow:
    """A row whose second sequence is its own prompt with the answer of another row, cut to `cutoff_len`."""
    prompt = row.input_ids[: answer_start(row.labels)]
    answer = other.input_ids[answer_start(other.labels) :][: cutoff_len - len(prompt)]
    ids = row.input_ids + prompt + answer
    labels = row.labels + [IGNORE_INDEX] * len(prompt) + answer
    return replace(row, input_ids=ids, labels=labels, second=len(row.input_ids))


class JudgedRows(TrainRows):
    """Rows with a verdict; the second sequence of each is a mismatched answer.

    Which answer that is depends on the order of the set alone, not on batches.
    """

    def __init__(self, rows: TokenizedRows, cutoff_len: int) -> None:
        super().__init__(rows)
        self._cutoff_len = cutoff_len
        keys = [prompt_key(row) for row in rows]
        self._partners = [partner_of(index, len(rows), keys.__getitem__) for index in range(len(rows))]

    def __getitem__(self, index: Any) -> Any:
        place = range(len(self))[index]
        other = self.rows[self._partners[place]]
        return as_item([with_mismatch(self.rows[place], other, self._cutoff_len)], [place])

    def digest(self) -> str:
        """Identity of the items in their order."""
        return digest("mismatched", super().digest(), self._cutoff_len)

    @property
    def tokens(self) -> Any:
        """Tokens of each item, at most."""
        return 2 * self.rows.lengths

    @property
    def longest(self) -> int:
        """Tokens of the longest item there may be."""
        return max(2 * super().longest, super().longest + self._cutoff_len) if len(self.rows) else 0
