"""Which rows are held out: decided by where a row comes from, so that every process and every run agrees."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from pathlib import Path

from tunesmith.core.errors import DataError, Problem
from tunesmith.core.types import Source


def split_validation(sources: Sequence[Source], val_size: float, seed: int) -> tuple[list[int], list[int]]:
    """Row indices for training and for validation, both in file order.

    Rows are ranked by a hash of seed, file name and row number: new rows move few old ones, and two uses of the same
    row land on the same side unless the border runs between them.

    Args:
        sources: where each row comes from.
        val_size: from 1 on a number of rows, below it a share of them; 0 splits nothing off.
        seed: another one draws other rows.

    Raises:
        DataError: nothing would be left to train on.
    """
    count = len(sources)
    if val_size <= 0:
        return list(range(count)), []
    wanted = int(val_size) if val_size >= 1 else math.ceil(val_size * count)
    if wanted >= count:
        raise DataError(
            [
                Problem(
                    f"val_size {val_size:g} takes {wanted} of {count} rows: none is left to train on",
                    "val_size",
                    "lower it, or add data",
                )
            ]
        )
    ranked = sorted(range(count), key=lambda index: (_rank(sources[index], seed), index))
    chosen = set(ranked[:wanted])
    return [index for index in range(count) if index not in chosen], sorted(chosen)


def _rank(source: Source, seed: int) -> bytes:
    text = f"{seed}\0{Path(source.file).name}\0{source.row}"
    return hashlib.blake2b(text.encode(), digest_size=8).digest()
