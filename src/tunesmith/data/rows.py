"""Token ids in memory: TokenizedRows (a data set, five bytes a token), TrainRows (items for the trainer). No torch."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, TypedDict

import numpy as np

from tunesmith.core.types import IGNORE_INDEX, Source, TokenizedRow

Array = Any
"""A numpy array; numpy is skipped by mypy here."""


class TrainItem(TypedDict):
    """One item of a batch: one row, or several rows laid end to end.

    Keys:
        input_ids: token ids, length T.
        labels: length T; IGNORE_INDEX where no loss.
        lengths: tokens of each row in the item, sum T; rows must not see each other.
        rows: index of each row, for messages about it.
    """

    input_ids: list[int]
    labels: list[int]
    lengths: list[int]
    rows: list[int]


@dataclass(frozen=True, slots=True, eq=False)
class TokenizedRows(Sequence[TokenizedRow]):
    """Rows as flat arrays.

    Attributes:
        ids: all token ids, int32.
        trained: whether the token at that place is its own label, bool.
        offsets: where each row begins in `ids`; one more than there are rows.
        file_index: into `files`, per row.
        numbers: row number in its file, per row.
        lost: tokens lost to truncation, and of them trained ones, shape (rows, 2).
        files: paths as the user wrote them.
        odd: (place in `ids`, label) where the label is not the id there: ends that a template leaves out, (n, 2).
    """

    ids: Array
    trained: Array
    offsets: Array
    file_index: Array
    numbers: Array
    lost: Array
    files: tuple[str, ...]
    odd: Array

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return self.take(range(*index.indices(len(self))))
        place = range(len(self))[index]
        lost, lost_trained = self.lost[place].tolist()
        return TokenizedRow(self.input_ids(place), self.labels(place), self.source(place), lost, lost_trained)

    @property
    def lengths(self) -> Array:
        """Tokens of each row."""
        return np.diff(self.offsets)

    def digest(self) -> str:
        """Identity of the rows in their order: sha256 over tokens and labels, 64 hex digits."""
        whole = hashlib.sha256()
        for array in (self.ids, self.trained, self.offsets, self.odd):
            whole.update(np.ascontiguousarray(array).tobytes())
        return whole.hexdigest()

    @property
    def n_trained(self) -> Array:
        """Tokens of each row that carry loss; its first position predicts nothing."""
        carries = self.trained.copy()
        carries[self.odd[:, 0]] = True
        filled = np.flatnonzero(self.lengths)
        starts = self.offsets[:-1][filled]
        carries[starts] = False
        counts: Array = np.zeros(len(self), dtype=np.int64)
        if len(starts):
            counts[filled] = np.add.reduceat(carries, starts, dtype=np.int64)
        return counts

    def input_ids(self, index: int) -> list[int]:
        """Token ids of one row."""
        ids: list[int] = self.ids[self.offsets[index] : self.offsets[index + 1]].tolist()
        return ids

    def labels(self, index: int) -> list[int]:
        """Labels of one row."""
        start, stop = int(self.offsets[index]), int(self.offsets[index + 1])
        labels = np.where(self.trained[start:stop], self.ids[start:stop], IGNORE_INDEX)
        first, last = (int(np.searchsorted(self.odd[:, 0], border)) for border in (start, stop))
        labels[self.odd[first:last, 0] - start] = self.odd[first:last, 1]
        values: list[int] = labels.tolist()
        return values

    def source(self, index: int) -> Source:
        """File and row number of one row."""
        return Source(self.files[self.file_index[index]], int(self.numbers[index]))

    def open_rows(self, ends: frozenset[int], window: int = 4) -> Array:
        """Indices of rows with a trained stretch without an end token among its last `window` tokens."""
        if not len(self) or not ends:
            return np.zeros(0, dtype=np.int64)
        labels = np.where(self.trained, self.ids, IGNORE_INDEX).astype(np.int64)
        labels[self.odd[:, 0]] = self.odd[:, 1]
        carries = labels != IGNORE_INDEX
        is_end = np.isin(labels, list(ends))
        followed: Array = np.append(carries[1:], False)
        followed[self.offsets[1:][self.lengths > 0] - 1] = False
        closed = is_end.copy()
        for _ in range(1, window):
            closed = is_end | (np.append(False, closed[:-1]) & carries)
        stops = np.flatnonzero(carries & ~followed)
        open_stops = stops[~closed[stops]]
        return np.unique(np.searchsorted(self.offsets, open_stops, side="right")) - 1

    def take(self, indices: Sequence[int] | Array) -> TokenizedRows:
        """The rows at `indices`, in that order."""
        chosen = np.asarray(indices, dtype=np.int64)
        offsets = np.concatenate([[0], np.cumsum(self.lengths[chosen])]).astype(np.int64)
        borders = list(zip(self.offsets[chosen].tolist(), self.offsets[chosen + 1].tolist(), strict=True))
        odd: list[Array] = []
        for start, (first, last) in zip(offsets[:-1].tolist(), borders if len(self.odd) else (), strict=False):
            low, high = (int(np.searchsorted(self.odd[:, 0], border)) for border in (first, last))
            odd.append(self.odd[low:high] + np.array([start - first, 0]))
        return TokenizedRows(
            ids=_joined([self.ids[first:last] for first, last in borders], np.int32),
            trained=_joined([self.trained[first:last] for first, last in borders], np.bool_),
            offsets=offsets,
            file_index=self.file_index[chosen],
            numbers=self.numbers[chosen],
            lost=self.lost[chosen],
            files=self.files,
            odd=_joined(odd, np.int64).reshape(-1, 2),
        )


def _joined(parts: list[Array], dtype: Any) -> Array:
    return np.concatenate(parts) if parts else np.zeros(0, dtype=dtype)


class RowsBuilder:
    """Collects TokenizedRow objects and packs them into arrays, a batch at a time."""

    def __init__(self) -> None:
        self._parts: list[TokenizedRows] = []

    def add(self, rows: Iterable[TokenizedRow]) -> TokenizedRows:
        """Appends rows; returns them as arrays."""
        part = pack_arrays(list(rows))
        self._parts.append(part)
        return part

    def build(self) -> TokenizedRows:
        """Everything added so far."""
        return concat_rows(self._parts)


def pack_arrays(rows: list[TokenizedRow]) -> TokenizedRows:
    """Row objects as arrays."""
    ids = np.array([token for row in rows for token in row.input_ids], dtype=np.int32)
    labels = np.array([label for row in rows for label in row.labels], dtype=np.int64)
    odd_places = np.flatnonzero((labels != IGNORE_INDEX) & (labels != ids))
    names = list(dict.fromkeys(row.source.file if row.source else "" for row in rows))
    place = {name: index for index, name in enumerate(names)}
    return TokenizedRows(
        ids=ids,
        trained=labels == ids,
        offsets=np.cumsum([0, *(len(row.input_ids) for row in rows)], dtype=np.int64),
        file_index=np.array([place[row.source.file if row.source else ""] for row in rows], dtype=np.int32),
        numbers=np.array([row.source.row if row.source else 0 for row in rows], dtype=np.int64),
        lost=np.array([(row.lost_tokens, row.lost_trained_tokens) for row in rows], dtype=np.int32).reshape(-1, 2),
        files=tuple(names),
        odd=np.stack([odd_places, labels[odd_places]], axis=1),
    )


def concat_rows(parts: Sequence[TokenizedRows]) -> TokenizedRows:
    """Data sets one after the other."""
    if len(parts) == 1:
        return parts[0]
    if not parts:
        return pack_arrays([])
    files = tuple(dict.fromkeys(name for part in parts for name in part.files))
    place = {name: index for index, name in enumerate(files)}
    starts = np.cumsum([0, *(len(part.ids) for part in parts)])
    remapped = [
        np.array([place[name] for name in part.files], dtype=np.int32)[part.file_index] for part in parts if len(part)
    ]
    return TokenizedRows(
        ids=np.concatenate([part.ids for part in parts]),
        trained=np.concatenate([part.trained for part in parts]),
        offsets=np.concatenate(
            [[0], *(part.offsets[1:] + start for part, start in zip(parts, starts, strict=False))]
        ).astype(np.int64),
        file_index=np.concatenate(remapped) if remapped else np.zeros(0, dtype=np.int32),
        numbers=np.concatenate([part.numbers for part in parts]),
        lost=np.concatenate([part.lost for part in parts]),
        files=files,
        odd=np.concatenate([part.odd + np.array([start, 0]) for part, start in zip(parts, starts, strict=False)]),
    )


class TrainRows(Sequence[TrainItem]):
    """A map-style data set of items for the trainer; plain rows, or packs of rows.

    Attributes:
        rows: the tokenized rows that the items are made of.
        packs: row indices of each item; None: item i is row i.
    """

    def __init__(self, rows: TokenizedRows, packs: list[list[int]] | None = None) -> None:
        self.rows = rows
        self.packs = packs

    def __len__(self) -> int:
        return len(self.rows) if self.packs is None else len(self.packs)

    def __getitem__(self, index: Any) -> Any:
        place = range(len(self))[index]
        members = [place] if self.packs is None else self.packs[place]
        item: TrainItem = {"input_ids": [], "labels": [], "lengths": [], "rows": list(members)}
        for member in members:
            ids = self.rows.input_ids(member)
            item["input_ids"] += ids
            item["labels"] += self.rows.labels(member)
            item["lengths"].append(len(ids))
        return item

    @property
    def tokens(self) -> Array:
        """Tokens of each item."""
        lengths = self.rows.lengths
        if self.packs is None:
            return lengths
        return np.array([int(lengths[members].sum()) for members in self.packs], dtype=np.int64)

    def source(self, row: int) -> Source:
        """File and row number behind one number in an item's `rows`."""
        return self.rows.source(row)
