"""A progress line for work that turns out to be long; short work shows nothing."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

_PATIENCE = 2.0


@contextmanager
def progress(title: str, *, is_silent: bool = False) -> Iterator[Callable[[int], None]]:
    """Gives a function that counts rows; from two seconds on they are shown, on a terminal only."""
    started = time.monotonic()
    bar: Any = None
    task: Any = None
    done = 0

    def advance(count: int) -> None:
        nonlocal bar, task, done
        done += count
        if bar is None and not is_silent and time.monotonic() - started > _PATIENCE and sys.stderr.isatty():
            bar = _make_bar()
            task = bar.add_task(title, total=None)
            bar.start()
        if bar is not None:
            bar.update(task, completed=done, rate=f"{done / (time.monotonic() - started):,.0f} rows/s")

    try:
        yield advance
    finally:
        if bar is not None:
            bar.stop()


def _make_bar() -> Any:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.completed:,} rows, {task.fields[rate]}"),
    )
    return Progress(*columns, console=Console(stderr=True), transient=True)
