"""Which tokens go through the model next: slots, pieces of prompts, memory, reuse of known prefixes. No model here."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch

from tunesmith.inference.keys_values import Known, PrefixCache, best_match, common_prefix
from tunesmith.inference.sequence import Chunk, Sequence

CPU_CHUNK, GPU_CHUNK = 128, 2048
"""Prompt tokens a step: long enough that matrix products are busy, short enough that answers under way do not stall."""
WORTH_WAITING = 16
"""Tokens of a shared prefix that are worth waiting for while another sequence reads them."""
SORTED_BATCHES = 8
"""Where batches are padded, this many of them are sorted by length together."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Sizes that a step keeps to.

    Attributes:
        chunk: prompt tokens that one step reads at most, over all sequences; None: whole prompts.
        max_bytes: keys and values in memory. One answer is always let through, however long.
        prefix_cache: reuse keys and values of earlier prompts.
        keeps_values: False: no keys and values outlive a step; each reads prompts and answers from their beginnings.
    """

    chunk: int | None = CPU_CHUNK
    max_bytes: int = 1 << 30
    prefix_cache: bool = True
    keeps_values: bool = True

    @classmethod
    def of(cls, device: torch.device, max_bytes: int) -> Limits:
        """Usual ones for a device."""
        return cls(CPU_CHUNK if device.type == "cpu" else GPU_CHUNK, max_bytes)

    def without_line(self) -> Limits:
        """For padded batches: whole prompts, and no cache that outlives its batch."""
        return replace(self, chunk=None, prefix_cache=False)

    def without_values(self) -> Limits:
        """For answers without a cache: `use_kv_cache: false`."""
        return replace(self, chunk=None, prefix_cache=False, keeps_values=False)


class Scheduler:
    """Sequences that wait and run.

    Args:
        slots: sequences under way together at most.
        limits: what a step keeps to.
        cache: finished sequences' keys and values.
        bytes_per_token: of keys and values; 0: padded batches, which begin together and keep their own.

    Attributes:
        waiting: not begun, first come first.
        running: begun, in the order they began.
        prompt_tokens: of prompts begun.
        reused_tokens: those of them that were known.
    """

    def __init__(self, slots: int, limits: Limits, cache: PrefixCache, bytes_per_token: int) -> None:
        self.waiting: deque[Sequence] = deque()
        self.running: list[Sequence] = []
        self.prompt_tokens = 0
        self.reused_tokens = 0
        self._slots = slots
        self._limits = limits
        self._cache = cache
        self._bytes_per_token = bytes_per_token
        self._joins_midway = bytes_per_token > 0
        self._dropped: set[int | None] = set()

    @property
    def n_bytes(self) -> int:
        """Memory of keys and values now."""
        return self._cache.n_bytes + sum(sequence.values.n_bytes for sequence in self.running)

    def add(self, sequence: Sequence) -> None:
        """Puts a sequence at the end of the line."""
        sequence.values.is_kept = self._limits.keeps_values
        self.waiting.append(sequence)

    def cancel(self, request_id: int) -> list[Sequence]:
        """Takes a request's sequences out; returns those that had begun."""
        self.waiting = deque(sequence for sequence in self.waiting if sequence.request_id != request_id)
        gone = [sequence for sequence in self.running if sequence.request_id == request_id]
        for sequence in gone:
            sequence.finish_reason = "stop"
        return self.retire()

    def retire(self) -> list[Sequence]:
        """Takes finished sequences out and keeps what they know."""
        done = [sequence for sequence in self.running if sequence.finish_reason]
        if done:
            self.running = [sequence for sequence in self.running if not sequence.finish_reason]
        for sequence in done:
            if self._limits.prefix_cache and sequence.key not in self._dropped:
                self._cache.keep(_known(sequence))
        return done

    def forget(self, key: int) -> None:
        """Nothing that an adapter made is used for new requests; versions do not come again."""
        self._cache.forget(key)
        self._dropped.add(key)

    def forget_all(self) -> None:
        """Nothing of earlier requests is used again."""
        self._cache.shrink(0)

    def plan(self) -> list[Chunk]:
        """What the next forward pass sees; sequences begin here."""
        if not self._joins_midway:
            return self._plan_batch()
        chunks = [Chunk(row, row.length) for row in self.running if row.n_cached >= len(row.prompt)]
        left = self._limits.chunk if self._limits.chunk is not None else 1 << 62
        for sequence in itertools.chain([row for row in self.running if row.n_cached < len(row.prompt)], self._begin()):
            end = min(sequence.length, sequence.n_cached + left)
            chunks.append(Chunk(sequence, end))
            left -= end - sequence.n_cached
            if left <= 0:
                break
        return chunks

    def _plan_batch(self) -> list[Chunk]:
        """Padded batches: the longest of the next few begin together, when the last batch is through."""
        if not self.running:
            window = [self.waiting.popleft() for _ in range(min(len(self.waiting), self._slots * SORTED_BATCHES))]
            window.sort(key=lambda sequence: -len(sequence.prompt))
            self.running = window[: self._slots]
            self.prompt_tokens += sum(len(sequence.prompt) for sequence in self.running)
            self.waiting.extendleft(reversed(window[self._slots :]))
        return [Chunk(sequence, sequence.length) for sequence in self.running]

    def _begin(self) -> Iterator[Sequence]:
        """Sequences that may begin now, one by one, as long as the caller has room for them."""
        while self.waiting and len(self.running) < self._slots:
            sequence = self.waiting[0]
            if not self._has_memory(sequence):
                return
            length, known = best_match(sequence.prompt, sequence.key, self._known())
            if self._is_being_read(sequence, length):
                return
            self.waiting.popleft()
            self._start(sequence, length, known)
            yield sequence

    def _start(self, sequence: Sequence, length: int, known: Known | None) -> None:
        # The last token of the prompt is always run: its logits choose the first token of the answer.
        n_reused = min(length, len(sequence.prompt) - 1)
        if known is not None and n_reused:
            sequence.values = known.values.copy(n_reused, len(sequence.prompt))
            sequence.n_cached = sequence.n_reused = n_reused
            self._cache.touch(known)
        sequence.values.reserve(len(sequence.prompt) + 1)
        self.prompt_tokens += len(sequence.prompt)
        self.reused_tokens += sequence.n_reused
        self.running.append(sequence)

    def _known(self) -> Iterator[Known]:
        if self._limits.prefix_cache:
            yield from self._cache.entries
            yield from (_known(sequence) for sequence in self.running)

    def _is_being_read(self, sequence: Sequence, length: int) -> bool:
        """Whether another sequence is about to know clearly more of the prompt than is known now."""
        if not self._limits.prefix_cache:
            return False
        readers = (
            row
            for row in self.running
            if row.key == sequence.key and row.n_cached < min(len(row.prompt), len(sequence.prompt))
        )
        return any(common_prefix(row.prompt, sequence.prompt) >= length + WORTH_WAITING for row in readers)

    def _has_memory(self, sequence: Sequence) -> bool:
        """Makes room among finished sequences; a sequence that runs alone is let through."""
        if not self._limits.keeps_values:
            return True
        per_token, limit = self._bytes_per_token, self._limits.max_bytes
        reserved = sum(row.n_reserved for row in self.running) * per_token
        if self.running and reserved + sequence.n_reserved * per_token > limit:
            return False
        self._cache.shrink(max(0, limit - reserved - sequence.n_reserved * per_token))
        return True


def _known(sequence: Sequence) -> Known:
    return Known(sequence.key, sequence.ids(0, sequence.n_cached), sequence.values)
