"""How far the making is: a bar on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from tunesmith.core.log import get_logger
from tunesmith.core.runs import Run

_logger = get_logger(__name__)
_PATIENCE = 30.0
"""Seconds between lines where there is no terminal."""
Advance = Callable[[int, int, str], None]


@contextmanager
def progress(title: str, total: int, run: Run | None = None) -> Iterator[Advance]:
    """Gives a function that counts: (rows kept, failed, words about cost).

    Args:
        title: of the work.
        total: of rows.
        run: where it is noted.
    """
    line = _Line(title, total)
    bar: Any = None
    if sys.stderr.isatty():
        bar = _bar()
        task = bar.add_task(title, total=total, note="")
        bar.start()

    def advance(kept: int, failed: int, cost: str) -> None:
        line.kept += kept
        line.failed += failed
        note = f"kept {line.kept:,}, failed {line.failed:,}{f', {cost}' if cost else ''}"
        if run is not None:
            run.progress(line.kept + line.failed, total, f"{title}: {note}")
        if bar is None:
            line.say(note)
        else:
            bar.update(task, completed=line.kept + line.failed, note=note)

    try:
        yield advance
    finally:
        if bar is not None:
            bar.stop()


class _Line:
    """Counts, and the line that says them."""

    def __init__(self, title: str, total: int) -> None:
        self.kept = self.failed = 0
        self._title = title
        self._total = total
        self._said = self._begun = time.monotonic()

    def say(self, note: str) -> None:
        """The line, if the last one is long ago."""
        now = time.monotonic()
        done = self.kept + self.failed
        if now - self._said < _PATIENCE or not done:
            return
        self._said = now
        left = (now - self._begun) / done * (self._total - done)
        text = f"{self._title}: {done:,} of {self._total:,}, {note}; about {left / 60:.0f} min left"
        _logger.info("%s", text)


def _bar() -> Any:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
    )
    return Progress(*columns, console=Console(stderr=True))
