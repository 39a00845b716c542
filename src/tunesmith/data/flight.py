"""Which rows the loader processes are at, for when one of them dies."""

from __future__ import annotations

import mmap
from collections.abc import Sequence
from typing import Any

import numpy as np

_SLOTS, _SLOT_ROWS = 64, 64


class Flight:
    """A note of each loader process, written by it and read by the process that made it."""

    def __init__(self) -> None:
        self._notes: Any = np.frombuffer(mmap.mmap(-1, 8 * _SLOTS * (_SLOT_ROWS + 1)), dtype=np.int64)

    def note(self, indices: Sequence[int]) -> None:
        """Leaves word of what a loader process is about to read; in another process nothing."""
        from torch.utils.data import get_worker_info

        worker = get_worker_info()
        if worker is not None and worker.id < _SLOTS:
            slot = self._notes.reshape(_SLOTS, -1)[worker.id]
            noted = indices[:_SLOT_ROWS]
            slot[1 : 1 + len(noted)] = noted
            slot[0] = len(noted)

    def indices(self) -> list[int]:
        """What loader processes were last asked for."""
        slots = self._notes.reshape(_SLOTS, -1)
        return [int(index) for slot in slots for index in slot[1 : 1 + int(slot[0])]]
