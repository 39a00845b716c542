"""Which rows are for evaluation: those of whole chunks or scenes, and none that shares text with training."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from tunesmith.core.log import get_logger
from tunesmith.synthesis.rows import Failure, Row

_logger = get_logger(__name__)
SHARED = "its text is in training, too"
Span = tuple[str, int, int]
"""(file, start, end)."""


def held_out(groups: Iterable[str], share: float, seed: int) -> set[str]:
    """The groups for evaluation, drawn by their names and the seed: as near to `share` as whole groups come.

    Args:
        groups: the group of each row (or of each chunk), so that large groups count more.
        share: of all of them; above 0 at least one group is held out, if there are two.
        seed: of the draw.
    """
    sizes = Counter(list(groups))
    if not share:
        return set()
    if len(sizes) < 2:
        _logger.warning("eval_share: there is only one chunk, so nothing is held out for evaluation")
        return set()
    drawn = sorted(sizes, key=lambda name: hashlib.sha256(f"{seed}\0{name}".encode()).digest())
    left = share * sizes.total()
    held: set[str] = set()
    for name in drawn:
        if abs(left - sizes[name]) < left and len(held) < len(sizes) - 1:
            held.add(name)
            left -= sizes[name]
    return held or {min(drawn, key=lambda name: sizes[name])}


def split(rows: Sequence[Row], held: set[str], spans: Mapping[str, Span]) -> tuple[list[Row], list[Row], list[Failure]]:
    """(rows to train on, rows to evaluate on, evaluation rows whose quote stands in a chunk of training, too).

    Args:
        rows: all.
        held: groups for evaluation.
        spans: group -> its stretch; chunks may overlap.
    """
    trained = [span for name, span in spans.items() if name not in held]
    train, evaluation, failures = [], [], []
    for row in rows:
        if row.group not in held:
            train.append(row)
        elif any(_overlaps(row, span) for span in trained):
            text = f"{row.asked} / {row.output}"
            failures.append(Failure(row.id, SHARED, row.source.name, row.group, row.kind, "", text, order=row.order))
        else:
            evaluation.append(row)
    return train, evaluation, failures


def _overlaps(row: Row, span: Span) -> bool:
    file, start, end = span
    return str(row.source.file) == file and row.start < end and start < row.end
