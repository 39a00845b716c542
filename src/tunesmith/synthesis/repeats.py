"""Exact and near duplicates among the rows: the first one stays, the others are listed with the one they repeat."""

from __future__ import annotations

import re
from collections.abc import Sequence

from tunesmith.data.checks.near import Sketches
from tunesmith.synthesis.rows import Failure, Row

_IGNORED = re.compile(r"[\W_]+")
EXACT, NEAR = "duplicate", "near duplicate"


def without_repeats(rows: Sequence[Row]) -> tuple[list[Row], list[Failure]]:
    """The rows in order, each once.

    Two rows are duplicates if they ask the same (or, where nothing is asked but said, are the same altogether), case,
    blanks and punctuation aside; near duplicates if they share 80 % of their shingles, as in `data check`.
    """
    kept: list[Row] = []
    failures: list[Failure] = []
    seen: dict[str, Row] = {}
    for row in sorted(rows, key=lambda row: row.order):
        key = _IGNORED.sub("", f"{row.instruction}{row.input}{'' if row.instruction else row.output}").lower()
        first = seen.setdefault(key, row)
        if first is row:
            kept.append(row)
        else:
            failures.append(_failure(row, EXACT, first, 1.0))
    sketches = Sketches()
    for row in kept:
        sketches.add(f"{row.asked}\n{row.output}")
    near = {place: (like, share) for place, like, share in sketches.repeats()}
    failures += [_failure(kept[place], NEAR, kept[like], share) for place, (like, share) in near.items()]
    return [row for place, row in enumerate(kept) if place not in near], failures


def _failure(row: Row, reason: str, like: Row, share: float) -> Failure:
    detail = f"of {like.id}, {share:.0%} alike"
    text = f"{row.asked} / {row.output}"
    return Failure(row.id, reason, row.source.name, row.group, row.kind, detail, text, order=row.order)
