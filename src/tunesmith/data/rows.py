"""Token ids in arrays: TokenizedRows (in memory or on disk), TrainRows (items for the trainer). No torch."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NotRequired, TypedDict

import numpy as np

from tunesmith.core.types import IGNORE_INDEX, Source, TokenizedRow

Array = Any
"""A numpy array; numpy is skipped by mypy here."""

ROW = np.dtype(
    [
        ("store", "<i4"),
        ("length", "<i4"),
        ("start", "<i8"),
        ("trained", "<i4"),
        ("file", "<i4"),
        ("number", "<i8"),
        ("lost", "<i4"),
        ("lost_trained", "<i4"),
        ("hash", "<u8"),
        ("weight", "<f4"),
        ("second", "<i4"),
        ("desirable", "?"),
    ]
)
"""What is known of a row: where its tokens are, tokens that carry loss, where it comes from, identity, weight;
where its second sequence begins (0: it has one only), and the verdict on its answer."""
_RELEASE_EVERY = 1 << 22
"""Tokens that are read from mapped files before their pages are given back."""
_MAPPED_AROUND = 1 << 15
"""Tokens beside those that are read whose pages the system maps along with them."""


class TrainItem(TypedDict):
    """One item of a batch: one row, or several rows laid end to end.

    Keys:
        input_ids: token ids, length T.
        labels: length T; IGNORE_INDEX where no loss.
        lengths: tokens of each row in the item, sum T; rows must not see each other.
        rows: index of each row, for messages about it.
        weights: how much each row counts; left out where all count 1.
        seconds: where the second sequence of each row begins; left out where rows are one sequence.
        desirable: the verdict on each row's answer; left out where nothing was judged.
        columns: name -> for each row one number for each of its trained tokens, first sequence first.
    """

    input_ids: list[int]
    labels: list[int]
    lengths: list[int]
    rows: list[int]
    weights: NotRequired[list[float]]
    seconds: NotRequired[list[int]]
    desirable: NotRequired[list[bool]]
    columns: NotRequired[dict[str, list[list[float]]]]


class TokenStore:
    """Flat arrays of tokens, five bytes a token.

    Attributes:
        ids: all token ids, int32.
        trained: whether the token at that place is its own label, bool.
        odd: (place in `ids`, label) where the label is not the id there: ends that a template leaves out, (n, 2).
    """

    def __init__(self, ids: Array, trained: Array, odd: Array, mapped: Sequence[Any] = ()) -> None:
        self.ids, self.trained, self.odd = ids, trained, odd
        self._mapped = mapped
        self._touched = 0

    def read(self, start: int, stop: int) -> tuple[Array, Array]:
        """Ids and labels between two places, as copies."""
        ids = np.array(self.ids[start:stop])
        labels = np.where(self.trained[start:stop], ids, IGNORE_INDEX)
        first, last = (int(np.searchsorted(self.odd[:, 0], border)) for border in (start, stop))
        labels[self.odd[first:last, 0] - start] = self.odd[first:last, 1]
        self._touched += stop - start + _MAPPED_AROUND
        if self._touched > _RELEASE_EVERY:
            self.release()
        return ids, labels

    def __getstate__(self) -> dict[str, Any]:
        return {"ids": self.ids, "trained": self.trained, "odd": self.odd, "_mapped": (), "_touched": 0}

    def release(self) -> None:
        """Gives pages of mapped files back: they stay in the system's cache and leave the process's memory."""
        import mmap

        self._touched = 0
        for area in self._mapped:
            area.madvise(mmap.MADV_DONTNEED)


@dataclass(frozen=True, eq=False)
class TokenizedRows(Sequence[TokenizedRow]):
    """Rows whose tokens lie in stores; choosing and joining rows copies no token.

    Attributes:
        stores: where tokens are.
        table: one ROW for each row.
        files: paths as the user wrote them.
    """

    stores: tuple[TokenStore, ...]
    table: Array
    files: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.table)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return self.take(range(*index.indices(len(self))))
        place = range(len(self))[index]
        ids, labels = self.read(place)
        row = self.table[place]
        lost = (int(row["lost"]), int(row["lost_trained"]))
        return TokenizedRow(
            ids.tolist(),
            labels.tolist(),
            self.source(place),
            *lost,
            weight=float(row["weight"]),
            second=int(row["second"]),
            is_desirable=bool(row["desirable"]),
        )

    @property
    def lengths(self) -> Array:
        """Tokens of each row."""
        return self.table["length"].astype(np.int64)

    @property
    def n_tokens(self) -> int:
        """Tokens of all rows."""
        return int(self.lengths.sum())

    @property
    def n_trained(self) -> Array:
        """Tokens of each row that carry loss; its first position predicts nothing."""
        return self.table["trained"].astype(np.int64)

    @property
    def lost(self) -> Array:
        """Tokens of each row lost to truncation, and of them trained ones, shape (rows, 2)."""
        return np.stack([self.table["lost"], self.table["lost_trained"]], axis=1)

    @cached_property
    def offsets(self) -> Array:
        """Where each row begins in `ids`; one more than there are rows."""
        return np.append(0, np.cumsum(self.lengths)).astype(np.int64)

    @property
    def _is_flat(self) -> bool:
        """Whether the rows are one store from end to end."""
        return (
            len(self.stores) == 1
            and len(self.stores[0].ids) == self.offsets[-1]
            and np.array_equal(self.table["start"], self.offsets[:-1])
        )

    @cached_property
    def ids(self) -> Array:
        """All tokens in one array, row after row; copied where rows were chosen or joined."""
        if self._is_flat:
            return self.stores[0].ids
        return np.concatenate([np.zeros(0, np.int32), *(self.read(index)[0] for index in range(len(self)))])

    def _all_labels(self) -> Array:
        if not self._is_flat:
            return np.concatenate([np.zeros(0, np.int64), *(self.read(index)[1] for index in range(len(self)))])
        store = self.stores[0]
        labels = np.where(store.trained, store.ids, IGNORE_INDEX).astype(np.int64)
        labels[store.odd[:, 0]] = store.odd[:, 1]
        return labels

    def digest(self) -> str:
        """Identity of the rows in their order: sha256 over tokens, labels and weights, 64 hex digits."""
        return hashlib.sha256(np.ascontiguousarray(self.table["hash"]).tobytes()).hexdigest()

    def read(self, index: int) -> tuple[Array, Array]:
        """Token ids and labels of one row."""
        return self.read_part(index, 0, int(self.table[index]["length"]))

    def read_part(self, index: int, first: int, stop: int) -> tuple[Array, Array]:
        """Token ids and labels of one row between two of its places."""
        row = self.table[index]
        start = int(row["start"])
        store: TokenStore = self.stores[int(row["store"])]
        return store.read(start + first, start + stop)

    def input_ids(self, index: int) -> list[int]:
        """Token ids of one row."""
        ids: list[int] = self.read(index)[0].tolist()
        return ids

    def labels(self, index: int) -> list[int]:
        """Labels of one row."""
        labels: list[int] = self.read(index)[1].tolist()
        return labels

    def source(self, index: int) -> Source:
        """File and row number of one row."""
        row = self.table[index]
        return Source(self.files[row["file"]], int(row["number"]))

    def sources(self) -> list[Source]:
        """File and row number of each row."""
        return [self.source(index) for index in range(len(self))]

    def open_rows(self, ends: frozenset[int], window: int = 4) -> Array:
        """Indices of rows with a trained stretch without an end token among its last `window` tokens."""
        if not len(self) or not ends:
            return np.zeros(0, dtype=np.int64)
        labels, offsets = self._all_labels(), self.offsets
        carries = labels != IGNORE_INDEX
        is_end = np.isin(labels, list(ends))
        followed: Array = np.append(carries[1:], False)
        followed[offsets[1:][self.lengths > 0] - 1] = False
        closed = is_end.copy()
        for _ in range(1, window):
            closed = is_end | (np.append(False, closed[:-1]) & carries)
        stops = np.flatnonzero(carries & ~followed)
        open_stops = stops[~closed[stops]]
        return np.unique(np.searchsorted(offsets, open_stops, side="right")) - 1

    def compact(self) -> TokenizedRows:
        """The same rows in one store that holds nothing else."""
        if self._is_flat:
            return self
        pairs = [self.read(index) for index in range(len(self))]
        ids, labels = (np.concatenate([np.zeros(0, np.int32), *(pair[side] for pair in pairs)]) for side in (0, 1))
        table = self.table.copy()
        table["store"], table["start"] = 0, self.offsets[:-1]
        odd = np.flatnonzero((labels != IGNORE_INDEX) & (labels != ids))
        store = TokenStore(ids, labels == ids, np.stack([odd, labels[odd]], axis=1).astype(np.int64))
        return TokenizedRows((store,), table, self.files)

    def take(self, indices: Sequence[int] | Array) -> TokenizedRows:
        """The rows at `indices`, in that order; tokens stay where they are."""
        return TokenizedRows(self.stores, self.table[np.asarray(indices, dtype=np.int64)], self.files)


class RowsBuilder:
    """Collects rows in memory, a batch at a time."""

    def __init__(self) -> None:
        self._parts: list[TokenizedRows] = []

    def add(self, part: TokenizedRows) -> None:
        """Appends rows."""
        self._parts.append(part)

    def build(self) -> TokenizedRows:
        """Everything added so far."""
        return concat_rows(self._parts)


def concat_rows(parts: Sequence[TokenizedRows]) -> TokenizedRows:
    """Data sets one after the other; tokens stay where they are."""
    if len(parts) == 1:
        return parts[0]
    files = tuple(dict.fromkeys(name for part in parts for name in part.files))
    place = {name: index for index, name in enumerate(files)}
    tables: list[Array] = []
    stores: list[TokenStore] = []
    for part in parts:
        table = part.table.copy()
        table["store"] += len(stores)
        if len(table):
            table["file"] = np.array([place[name] for name in part.files], dtype=np.int32)[part.table["file"]]
        tables.append(table)
        stores += part.stores
    return TokenizedRows(tuple(stores), np.concatenate(tables) if tables else np.zeros(0, dtype=ROW), files)


def as_item(rows: Sequence[TokenizedRow], numbers: Sequence[int]) -> TrainItem:
    """Rows laid end to end as one item.

    Args:
        rows: what the item holds.
        numbers: the number of each in the training set.
    """
    item: TrainItem = {
        "input_ids": [token for row in rows for token in row.input_ids],
        "labels": [label for row in rows for label in row.labels],
        "lengths": [len(row.input_ids) for row in rows],
        "rows": list(numbers),
    }
    if any(row.weight != 1 for row in rows):
        item["weights"] = [float(np.float32(row.weight)) for row in rows]  # as a table keeps it
    if any(row.second for row in rows):
        item["seconds"] = [row.second for row in rows]
    if not all(row.is_desirable for row in rows):
        item["desirable"] = [row.is_desirable for row in rows]
    return item


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
        return as_item([self.rows[member] for member in members], members)

    @property
    def tokens(self) -> Array:
        """Tokens of each item."""
        lengths = self.rows.lengths
        if self.packs is None:
            return lengths
        return np.array([int(lengths[members].sum()) for members in self.packs], dtype=np.int64)

    @property
    def longest(self) -> int:
        """Tokens of the longest row, 0 where there is none."""
        return int(self.rows.lengths.max(initial=0))

    @property
    def example(self) -> TokenizedRow:
        """The first row, as it is shown before training."""
        row: TokenizedRow = self.rows[0]
        return row

    @property
    def trained_tokens(self) -> int:
        """Tokens that carry loss."""
        return int(self.rows.n_trained.sum())

    def digest(self) -> str:
        """Identity of the rows in their order."""
        return self.rows.digest()

    def source(self, row: int) -> Source:
        """File and row number behind one number in an item's `rows`."""
        return self.rows.source(row)
