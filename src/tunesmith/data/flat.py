"""Rows laid end to end as they are made, and packed into tables. No torch."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np

from tunesmith.core.types import IGNORE_INDEX, Source, TokenizedRow
from tunesmith.data.rows import ROW, Array, TokenizedRows, TokenStore


@dataclass(frozen=True, slots=True)
class FlatTokens:
    """Rows laid end to end.

    Attributes:
        ids: token ids, int32.
        labels: of the same length, int32.
        lengths: tokens of each row.
    """

    ids: Array
    labels: Array
    lengths: Array

    def row(self, index: int) -> tuple[Array, Array]:
        """Ids and labels of one row."""
        stop = int(self.lengths[: index + 1].sum())
        start = stop - int(self.lengths[index])
        return self.ids[start:stop], self.labels[start:stop]

    def with_rows(self, others: Mapping[int, TokenizedRow]) -> FlatTokens:
        """The same with some rows replaced."""
        if not others:
            return self
        ids, labels = ([*np.split(part, np.cumsum(self.lengths)[:-1])] for part in (self.ids, self.labels))
        lengths = self.lengths.copy()
        for index, row in others.items():
            ids[index], labels[index] = (np.array(part, dtype=np.int32) for part in (row.input_ids, row.labels))
            lengths[index] = len(row.input_ids)
        return FlatTokens(np.concatenate(ids), np.concatenate(labels), lengths)


def pack_arrays(rows: Iterable[TokenizedRow]) -> TokenizedRows:
    """Row objects as arrays."""
    rows = list(rows)
    lengths: Array = np.array([len(row.input_ids) for row in rows], dtype=np.int64)
    count = int(lengths.sum())
    ids = np.fromiter(chain.from_iterable(row.input_ids for row in rows), np.int32, count)
    labels = np.fromiter(chain.from_iterable(row.labels for row in rows), np.int32, count)
    sources, weights = [row.source for row in rows], [row.weight for row in rows]
    return pack_flat(FlatTokens(ids, labels, lengths), sources, weights, dict(enumerate(rows)), is_whole=True)


def pack_flat(
    flat: FlatTokens,
    sources: Sequence[Source | None],
    weights: Sequence[float],
    others: Mapping[int, TokenizedRow],
    *,
    is_whole: bool = False,
) -> TokenizedRows:
    """Rows laid end to end with what is known of each.

    Args:
        flat: tokens.
        sources: where each row comes from.
        weights: how much each counts.
        others: by number, rows that take the place of those in `flat`, or say more about them.
        is_whole: the tokens of `others` are in `flat`.
    """
    flat = flat if is_whole else flat.with_rows(others)
    ids, labels = flat.ids, flat.labels
    odd_places = np.flatnonzero((labels != IGNORE_INDEX) & (labels != ids))
    names = list(dict.fromkeys([source.file if source else "" for source in sources]))
    place = {name: index for index, name in enumerate(names)}
    table: Array = np.zeros(len(sources), dtype=ROW)
    table["length"] = flat.lengths
    table["start"] = np.cumsum(table["length"], dtype=np.int64) - table["length"]
    table["file"] = [place[source.file if source else ""] for source in sources]
    table["number"] = [source.row if source else 0 for source in sources]
    table["weight"] = weights
    table["desirable"] = True
    for index, row in others.items():
        table[["lost", "lost_trained"]][index] = (row.lost_tokens, row.lost_trained_tokens)
        table[["second", "desirable"]][index] = (row.second, row.is_desirable)
    table["trained"] = _count_trained(labels, table)
    table["hash"] = _hashes(ids, labels, table)
    store = TokenStore(ids, labels == ids, np.stack([odd_places, labels[odd_places]], axis=1).astype(np.int64))
    return TokenizedRows((store,), table, tuple(names))


def _count_trained(labels: Array, table: Array) -> Array:
    carries = labels != IGNORE_INDEX
    filled = np.flatnonzero(table["length"])
    starts = table["start"][filled]
    carries[starts] = False
    carries[(table["start"] + table["second"])[filled]] = False
    counts: Array = np.zeros(len(table), dtype=np.int64)
    if len(starts):
        counts[filled] = np.add.reduceat(carries, starts, dtype=np.int64)
    return counts


def _hashes(ids: Array, labels: Array, table: Array) -> Array:
    """Eight bytes of blake2b over each row's ids, labels and, where they are not the usual, its other facts."""
    found: Array = np.empty(len(table), dtype=np.uint64)
    columns = [table[name].tolist() for name in ("start", "length", "weight", "second", "desirable")]
    for index, (start, length, weight, second, desirable) in enumerate(zip(*columns, strict=True)):
        whole = hashlib.blake2b(ids[start : start + length].tobytes(), digest_size=8)
        whole.update(labels[start : start + length].tobytes())
        if weight != 1:
            whole.update(repr(weight).encode())
        if second or not desirable:
            whole.update(repr((second, desirable)).encode())
        found[index] = int.from_bytes(whole.digest(), "little")
    return found
