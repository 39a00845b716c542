"""A bar for long work: how much is done, how long it takes, how it looks so far; lines where there is no terminal."""

from __future__ import annotations

import sys
import time
from typing import Any

from tunesmith.core.log import get_logger
from tunesmith.core.runs import Run

LINE_SECONDS = 30.0
"""Without a terminal, a line is logged this often."""
logger = get_logger(__name__)


class ProgressBar:
    """Shows `done` of `total`; used as a `with` block.

    Args:
        title: what is being done.
        total: how many there are.
        live: False: lines alone, as where another bar is shown already.
        run: where it is noted, too.
    """

    def __init__(self, title: str, total: int, *, live: bool = True, run: Run | None = None) -> None:
        self._run = run
        self._live = live
        self._title = title
        self._total = total
        self._bar: Any = None
        self._task: Any = None
        self._said = time.monotonic()

    def __enter__(self) -> ProgressBar:
        if self._live and sys.stderr.isatty():
            self._bar = _bar()
            self._task = self._bar.add_task(self._title, total=self._total, score="")
            self._bar.start()
        return self

    def show(self, done: int, score: str = "") -> None:
        """Moves the bar to `done`, with a word on the scores so far."""
        if self._run is not None:
            self._run.progress(done, self._total, f"{self._title}: {score}" if score else self._title)
        if self._bar is not None:
            self._bar.update(self._task, completed=done, score=score)
        elif time.monotonic() - self._said > LINE_SECONDS:
            self._said = time.monotonic()
            logger.info("%s: %d of %d%s", self._title, done, self._total, f", {score}" if score else "")

    def __exit__(self, *error: object) -> None:
        if self._bar is not None:
            self._bar.stop()


def _bar() -> Any:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[score]}"),
    )
    return Progress(*columns, console=Console(stderr=True))
