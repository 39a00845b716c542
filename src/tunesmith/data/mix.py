"""Which rows are held out, and how those of several data sets are mixed; the same in every process and run."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tunesmith.core.errors import DataError, Problem
from tunesmith.core.log import get_logger
from tunesmith.core.types import Source

if TYPE_CHECKING:
    from tunesmith.config.schema import RunConfig

logger = get_logger(__name__)


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


def split_and_mix(
    sources: Callable[[], Sequence[Source]], sizes: Sequence[int], names: Sequence[str], config: RunConfig
) -> tuple[Any, list[int]]:
    """Numbers of the rows to train on, in order, and of those that `val_size` holds out.

    Rows are held out first: no row that is used twice lands on both sides.

    Args:
        sources: where each row comes from, all data sets laid one after the other; asked only where it matters.
        sizes: rows of each data set.
        names: of the data sets.
        config: `val_size`, `mix_strategy`, `interleave_probs`, `seed`.
    """
    kept: Any = np.arange(sum(sizes))
    held: list[int] = []
    if config.val_size:
        left, held = split_validation(sources(), config.val_size, config.seed)
        kept = np.asarray(left)
    if config.mix_strategy != "concat" and len(sizes) > 1:
        kept = mix_rows(kept, sizes, names, config)
    return kept, held


def _rank(source: Source, seed: int) -> bytes:
    text = f"{seed}\0{Path(source.file).name}\0{source.row}"
    return hashlib.blake2b(text.encode(), digest_size=8).digest()


@dataclass(frozen=True, slots=True)
class Mixture:
    """Rows of several data sets as one.

    Attributes:
        order: the rows in turn, as given to `interleave`; one that is used twice stands there twice.
        counts: rows in `order` out of each data set.
        shares: wanted share of each data set.
    """

    order: Any
    counts: tuple[int, ...]
    shares: tuple[float, ...]

    def lines(self, names: Sequence[str], sizes: Sequence[int]) -> list[str]:
        """What became of each data set, for the user."""
        total = max(sum(self.counts), 1)
        found = []
        for name, size, count, share in zip(names, sizes, self.counts, self.shares, strict=True):
            times, rest = divmod(count, max(size, 1))
            often = f"each {times} times" if not rest else f"each {times} or {times + 1} times"
            use = f"{count:,} of {size:,} rows" if count <= size else f"{count:,} rows out of {size:,}, {often}"
            found.append(f"mixed: {name}: {use}, {100 * count / total:.1f} % ({100 * share:.1f} % asked)")
        return found


def mix_rows(kept: Any, sizes: Sequence[int], names: Sequence[str], config: RunConfig) -> Any:
    """Row numbers of the mixture that `mix_strategy` asks for; what became of each data set is printed.

    Args:
        kept: numbers of the rows to train on, in the data sets laid one after the other.
        sizes: rows of each data set.
        names: of the data sets.
        config: `mix_strategy`, `interleave_probs`, `seed`.
    """
    borders = np.cumsum([0, *sizes])
    members = [kept[(kept >= first) & (kept < last)] for first, last in pairwise(borders)]
    mixture = interleave(members, config.mix_strategy, config.interleave_probs, config.seed)
    for line in mixture.lines(names, [len(rows) for rows in members]):
        logger.info(line)
    return mixture.order


def interleave(members: Sequence[Any], strategy: str, shares: Sequence[float], seed: int) -> Mixture:
    """Mixes data sets by share.

    `interleave_under` ends when the first data set is used up, `interleave_over` when the last one is (the others begin
    again), `interleave_once` uses every row once. Each turn goes to the data set that is furthest behind its share,
    so shares hold from beginning to end, not on average only.

    Args:
        members: row indices of each data set.
        strategy: one of the three.
        shares: of each data set; empty means equal ones.
        seed: draws the rows where not all of a data set are needed, or not all equally often.

    Raises:
        DataError: a data set is empty.
    """
    sizes = np.array([len(rows) for rows in members], dtype=np.int64)
    if not sizes.all():
        raise DataError([Problem("a data set without rows cannot be mixed", "mix_strategy", "take it out of dataset")])
    weights = np.array(shares or [1.0] * len(members), dtype=np.float64)
    weights /= weights.sum()
    lengths = sizes / weights
    if strategy == "interleave_once":
        counts = sizes
    else:
        whole = lengths.min() if strategy == "interleave_under" else lengths.max()
        counts = np.maximum(np.round(whole * weights + 1e-9).astype(np.int64), 1)
    generator = np.random.default_rng(seed)
    chosen = [_some(np.asarray(rows), int(count), generator) for rows, count in zip(members, counts, strict=True)]
    turns = np.concatenate([(np.arange(count) + 0.5) / weight for count, weight in zip(counts, weights, strict=True)])
    order = np.concatenate(chosen)[np.argsort(turns, kind="stable")]
    return Mixture(order, tuple(counts.tolist()), tuple(weights.tolist()))


def _some(rows: Any, count: int, generator: Any) -> Any:
    """`count` of `rows`: whole passes, and a drawn part of them in file order."""
    passes, rest = divmod(count, len(rows))
    drawn = np.sort(generator.permutation(len(rows))[:rest])
    return np.concatenate([np.tile(rows, passes), rows[drawn]])
