"""Near duplicates in linear time: texts as sets of character shingles, compared by bottom-k sketches and MinHash bands.

Characters and not words, so that Chinese works. Broder, "On the resemblance and containment of documents" (1997).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

Array = Any
"""A numpy array; numpy is skipped by mypy here."""

THRESHOLD = 0.8
"""Share of common shingles from which two texts are near duplicates."""
SKETCH = 128
BANDS = 10
ROWS_PER_BAND = 4
CANDIDATES = 4
"""Rows of one bucket that a row is compared with; it keeps the work linear where thousands of rows are alike."""

_SPACED, _DENSE = 5, 3
_FIRST_DENSE = 0x2E80
_EMPTY = np.iinfo(np.uint64).max


def _odd_numbers(count: int, seed: int) -> Array:
    generator = np.random.default_rng(seed)
    return generator.integers(1, 1 << 63, size=count, dtype=np.uint64) * np.uint64(2) + np.uint64(1)


_POWERS = _odd_numbers(_SPACED, 1)
_FACTORS = _odd_numbers(BANDS * ROWS_PER_BAND, 2)
_SHIFTS = _odd_numbers(BANDS * ROWS_PER_BAND, 3)
_JOINERS = _odd_numbers(ROWS_PER_BAND, 4)


def shingles(text: str) -> Array:
    """Hashes of the distinct runs of characters in a text, sorted, uint64; case and amount of blanks do not count.

    Five characters to a run; three where most of them are of a script without blanks between words.
    """
    points = np.frombuffer(" ".join(text.lower().split()).encode("utf-32-le", "surrogatepass"), dtype=np.uint32)
    if not len(points):
        return np.zeros(0, dtype=np.uint64)
    is_dense = 2 * int((points >= _FIRST_DENSE).sum()) > len(points)
    size = min(_DENSE if is_dense else _SPACED, len(points))
    count = len(points) - size + 1
    hashes: Array = np.full(count, size, dtype=np.uint64)
    for place in range(size):
        hashes += points[place : place + count].astype(np.uint64) * _POWERS[place]
    return np.unique(_mixed(hashes))


def _mixed(values: Array) -> Array:
    """Spreads the bits (the finaliser of splitmix64)."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


def bands(sketch: Array, group: int = 0) -> Array:
    """Bucket numbers of a sketch, one a band; texts of different groups never meet."""
    values = sketch[None, :] * _FACTORS[:, None] + _SHIFTS[:, None]
    least = (values >> np.uint64(16)).min(axis=1).reshape(BANDS, ROWS_PER_BAND)
    joined = (least * _JOINERS).sum(axis=1, dtype=np.uint64)
    return _mixed(joined + np.arange(BANDS, dtype=np.uint64) + np.uint64(group * BANDS))


def similarity(first: Array, second: Array) -> float:
    """Share of shingles that two texts have in common, out of their sketches: exact for short texts, else estimated."""
    union = np.union1d(first, second)
    if len(first) == SKETCH or len(second) == SKETCH:
        union = union[:SKETCH]
    common = np.intersect1d(np.intersect1d(first, second, assume_unique=True), union, assume_unique=True)
    return len(common) / max(len(union), 1)


@dataclass(slots=True)
class Sketches:
    """Texts in the form that is compared: about one kilobyte each, however long the text."""

    rows: list[Array] = field(default_factory=list)
    buckets: list[Array] = field(default_factory=list)

    def add(self, text: str, group: int = 0) -> None:
        """Takes the next text; an empty one is like no other."""
        sketch = shingles(text)[:SKETCH].copy()  # a view would keep all of the text
        self.rows.append(sketch)
        self.buckets.append(bands(sketch, group) if len(sketch) else np.full(BANDS, _EMPTY, dtype=np.uint64))

    def repeats(self) -> Iterator[tuple[int, int, float]]:
        """(row, earlier row like it, similarity), each row once, in order."""
        yield from self._matches(self, _earlier_rows(self._table()))

    def found_in(self, other: Sketches) -> Iterator[tuple[int, int, float]]:
        """(row here, row of `other` like it, similarity), each row once, in order."""
        yield from self._matches(other, _rows_of_other(self._table(), other._table()))

    def _table(self) -> Array:
        return np.array(self.buckets, dtype=np.uint64).reshape(-1, BANDS)

    def _matches(self, other: Sketches, pairs: Array) -> Iterator[tuple[int, int, float]]:
        done = -1
        for row, like in pairs.tolist():
            if row == done:
                continue
            share = similarity(self.rows[row], other.rows[like])
            if share >= THRESHOLD:
                done = row
                yield row, like, share


def _earlier_rows(table: Array) -> Array:
    """Pairs (row, earlier row) that share a bucket, sorted: with the first ones of the bucket, and the one before."""
    found: list[Array] = [np.zeros((0, 2), dtype=np.int64)]
    for keys in table.T:
        order = np.argsort(keys, kind="stable")
        order = order[keys[order] != _EMPTY]
        if len(order) < 2:
            continue
        ordered = keys[order]
        starts: Array = np.searchsorted(ordered, ordered, side="left")
        places = np.arange(len(order))
        for step in range(CANDIDATES):
            valid = starts + step < places
            found.append(np.stack([order[valid], order[(starts + step)[valid]]], axis=1))
        valid = starts < places
        found.append(np.stack([order[valid], order[places[valid] - 1]], axis=1))
    return np.unique(np.concatenate(found), axis=0)


def _rows_of_other(table: Array, other: Array) -> Array:
    """Pairs (row, row of the other table) that share a bucket, sorted."""
    found: list[Array] = [np.zeros((0, 2), dtype=np.int64)]
    for keys, theirs in zip(table.T, other.T, strict=True):
        order = np.argsort(theirs, kind="stable")
        ordered = theirs[order]
        starts: Array = np.searchsorted(ordered, keys, side="left")
        stops: Array = np.searchsorted(ordered, keys, side="right")
        for step in range(CANDIDATES):
            valid = np.flatnonzero((starts + step < stops) & (keys != _EMPTY))
            found.append(np.stack([valid, order[(starts + step)[valid]]], axis=1))
    return np.unique(np.concatenate(found), axis=0)
