"""Keys and values of sequences, and the prefix cache over them.

Every sequence owns one contiguous, growing buffer for each layer. Blocks of a pool (paging) would share prefixes
without a copy, but torch's attention kernels want contiguous keys, so each step would gather, that is read and write,
everything it attends to; a copy of a shared prefix happens once for each request and costs as little as a memcpy.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch

GROWTH = 1.5
BLOCK = 64
"""Buffers hold a multiple of this many tokens."""


@dataclass(slots=True, eq=False)
class KeyValues:
    """Keys and values of one sequence.

    Attributes:
        capacity: tokens that there is room for.
        n_bytes: memory taken.
        layers: layer index to keys (Hkv, capacity, D) and values (Hkv, capacity, Dv).
        is_kept: False: nothing is stored; every forward pass brings all tokens anew.
    """

    capacity: int = 0
    n_bytes: int = 0
    layers: dict[int, tuple[torch.Tensor, torch.Tensor]] = field(default_factory=dict)
    is_kept: bool = True

    def write(
        self, layer: int, start: int, key: torch.Tensor, value: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Puts keys (Hkv, n, D) and values (Hkv, n, Dv) at `start`; returns all up to there, without a copy."""
        if not self.is_kept:
            return key, value
        end = start + key.shape[1]
        held = self.layers.get(layer)
        if held is None or held[0].shape[1] < end:
            held = self.layers[layer] = (self._grown(held, 0, key), self._grown(held, 1, value))
        keys, values = held
        keys[:, start:end] = key
        values[:, start:end] = value
        return keys[:, :end], values[:, :end]

    def _grown(self, held: tuple[torch.Tensor, torch.Tensor] | None, which: int, like: torch.Tensor) -> torch.Tensor:
        new = like.new_empty(like.shape[0], self.capacity, like.shape[2])
        self.n_bytes += new.nbytes
        if held is not None:
            self.n_bytes -= held[which].nbytes
            new[:, : held[which].shape[1]] = held[which]
        return new

    def reserve(self, n_tokens: int) -> None:
        """Makes the next writes find room for `n_tokens` in all."""
        if n_tokens > self.capacity:
            wanted = max(n_tokens, int(self.capacity * GROWTH))
            self.capacity = -(-wanted // BLOCK) * BLOCK

    def copy(self, n_tokens: int, room: int) -> KeyValues:
        """The first `n_tokens` in buffers of their own, with room for `room`."""
        new = KeyValues()
        new.reserve(max(n_tokens, room))
        for layer, (keys, values) in self.layers.items():
            new.write(layer, 0, keys[:, :n_tokens], values[:, :n_tokens])
        return new


def common_prefix(a: np.ndarray, b: np.ndarray) -> int:
    """How many ids two arrays begin with alike."""
    n = min(len(a), len(b))
    different = np.flatnonzero(a[:n] != b[:n])
    return int(different[0]) if len(different) else n


@dataclass(slots=True, eq=False)
class Known:
    """Keys and values that a later prompt may begin with.

    Attributes:
        key: what made them besides the ids: the version of the adapter, None for the base.
        ids: the tokens they belong to.
        values: holds at least `len(ids)` tokens.
    """

    key: int | None
    ids: np.ndarray
    values: KeyValues


def best_match(prompt: np.ndarray, key: int | None, known: Iterable[Known]) -> tuple[int, Known | None]:
    """The entry that shares the longest prefix with a prompt, and its length in tokens.

    Ids are compared, not their hashes: two prompts are never taken for one another.
    """
    best, found = 0, None
    for entry in known:
        if entry.key == key and len(entry.ids) > best:
            length = common_prefix(prompt, entry.ids)
            if length > best:
                best, found = length, entry
    return best, found


class PrefixCache:
    """Keys and values of finished sequences, least recently used leave first.

    Args:
        max_bytes: memory that entries may take together; 0 keeps none.
        max_entries: bounds the search.
    """

    def __init__(self, max_bytes: int, max_entries: int = 64) -> None:
        self.max_bytes = max_bytes
        self.max_entries = max_entries
        self._entries: list[Known] = []  # least recently used first

    @property
    def entries(self) -> Sequence[Known]:
        """What is kept."""
        return self._entries

    @property
    def n_bytes(self) -> int:
        """Memory taken."""
        return sum(entry.values.n_bytes for entry in self._entries)

    def keep(self, entry: Known) -> None:
        """Takes over a finished sequence; what it contains whole is dropped."""
        if not len(entry.ids) or entry.values.n_bytes > self.max_bytes:
            return
        self._entries = [
            old for old in self._entries if old.key != entry.key or common_prefix(old.ids, entry.ids) < len(old.ids)
        ]
        self._entries.append(entry)
        self.shrink(self.max_bytes)

    def touch(self, entry: Known) -> None:
        """Notes that an entry was of use; one that is not kept here is none of ours."""
        if entry in self._entries:
            self._entries.remove(entry)
            self._entries.append(entry)

    def shrink(self, n_bytes: int) -> None:
        """Drops the least recently used until no more than `n_bytes` are taken."""
        taken = self.n_bytes
        while self._entries and (taken > n_bytes or len(self._entries) > self.max_entries):
            taken -= self._entries.pop(0).values.n_bytes

    def forget(self, key: int | None) -> None:
        """Drops everything that an adapter made."""
        self._entries = [entry for entry in self._entries if entry.key != key]
