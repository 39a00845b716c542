"""The order of rows in a stream, shuffled within a window that moves over the file; and what its processes died of."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from torch.utils.data import Sampler

from tunesmith.core.errors import TrainingError


class WindowSampler(Sampler[int]):
    """Each next row is drawn out of `window` waiting ones, and the next of the file takes its place.

    Only numbers wait, not rows, so a resumed run passes over what was done without reading it.
    """

    def __init__(self, count: int, window: int, seed: int) -> None:
        self._count, self._window, self._seed = count, window, seed
        self._epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Another epoch, another order."""
        self._epoch = epoch

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[int]:
        generator = np.random.default_rng((self._seed, self._epoch))
        waiting = list(range(min(self._window, self._count)))
        for following in range(len(waiting), self._count):
            slot = int(generator.integers(len(waiting)))
            yield waiting[slot]
            waiting[slot] = following
        yield from (waiting[slot] for slot in generator.permutation(len(waiting)).tolist())


def check_batches(args: Any, rows: Any) -> None:
    """Refuses a data set that has no full batch, where others are left out.

    Args:
        args: TrainingArguments.
        rows: the training set.

    Raises:
        TrainingError: nothing would be left.
    """
    batch = args.train_batch_size * args.world_size
    if args.dataloader_drop_last and len(rows) < batch:
        raise TrainingError(
            f"dataloader_drop_last leaves nothing to train on: {len(rows)} rows make no full batch of {batch}; lower "
            "per_device_train_batch_size, or set dataloader_drop_last: false"
        )


def raise_for_worker(error: RuntimeError, rows: Any) -> None:
    """Says which rows a loader process was at when it died.

    Args:
        error: what torch raised.
        rows: the training set.

    Raises:
        TrainingError: it was such a death; other errors are left alone.
    """
    if "DataLoader worker" not in str(error):
        return
    at = "; ".join(str(source) for source in rows.in_flight()) if hasattr(rows, "in_flight") else ""
    where = f"; the rows that its processes were at: {at}" if at else ""
    fix = "was it out of memory? set dataloader_num_workers: 0 to see the cause"
    raise TrainingError(f"a process that prepares data died ({str(error).splitlines()[0]}){where}; {fix}") from error
