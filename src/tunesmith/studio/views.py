"""What the page shows of runs: the run directories as plain values for the browser. Reads only."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from tunesmith.core.run_state import RunState, curves, find_runs, last_lines, read_state
from tunesmith.core.runs import EVENTS_FILE, LOG_FILE
from tunesmith.recipes.queue import waiting
from tunesmith.recipes.runs import differences, load_resolved
from tunesmith.studio.workspace import Workspace

POINTS = 400
"""Points of a curve that the browser gets; longer ones are thinned out, ends kept."""
FIRST = ("loss", "eval_loss", "learning_rate", "grad_norm", "tokens_per_second", "memory_gb")
_LAST = ("_runtime", "_per_second", "total_flos", "train_loss")
Curve = list[tuple[int, float]]


def run_view(workspace: Workspace, name: str, known: str | None = None) -> dict[str, Any]:
    """Where a run stands, with its curves and last lines.

    Args:
        workspace: which the run is in.
        name: its folder, from the workspace on.
        known: the `version` that the browser has.

    Returns:
        `{"same": True}` where nothing is new.

    Raises:
        TunesmithError: the folder is outside the workspace.
    """
    folder = workspace.inside(name)
    state = read_state(folder)
    if state is None:
        return {**_nothing(workspace.shown(folder)), "version": "none"}
    version = _version(folder, state)
    if version == known:
        return {"same": True}
    now = time.time()
    return {
        "version": version,
        "folder": workspace.shown(folder),
        "state": state.state,
        "reason": state.reason,
        "step": state.step,
        "total_steps": state.total_steps,
        "left": state.seconds_left(now),
        "elapsed": (state.ended or now) - state.started if state.started else None,
        "place": _place(workspace, folder) if state.state == "queued" else 0,
        "curves": drawn(folder),
        "lines": last_lines(folder, 60),
    }


def _nothing(folder: str) -> dict[str, Any]:
    facts = {"state": "none", "reason": "", "step": 0, "total_steps": 0, "left": None, "elapsed": None}
    return {"folder": folder, **facts, "place": 0, "curves": {}, "lines": []}


def _version(folder: Path, state: RunState) -> str:
    """Changes with whatever the view shows; a run at work also by the second, for its clock."""
    marks = [_mark(folder / file) for file in (EVENTS_FILE, LOG_FILE)]
    clock = int(time.time()) if state.is_active else 0
    return f"{state.state} {marks} {clock}"


def _mark(path: Path) -> tuple[int, int]:
    try:
        found = path.stat()
    except OSError:
        return 0, 0
    return found.st_size, found.st_mtime_ns


def _place(workspace: Workspace, folder: Path) -> int:
    folders = [run.folder.resolve() for run in waiting(workspace.root)]
    return folders.index(folder) + 1 if folder in folders else 0


def drawn(folder: Path) -> dict[str, Curve]:
    """The curves of a run as they are drawn: the usual ones first, totals of the whole run left out."""
    found = _curves(folder, _mark(folder / EVENTS_FILE))
    names = [name for name in found if not name.endswith(_LAST) or name in FIRST]
    names.sort(key=lambda name: (FIRST.index(name) if name in FIRST else len(FIRST), name))
    return {name: thinned(found[name]) for name in names}


@lru_cache(maxsize=64)
def _curves(folder: Path, mark: tuple[int, int]) -> dict[str, Curve]:
    """Read once for each state of the file."""
    return {
        name: [(step, value) for step, value in points if math.isfinite(value)]
        for name, points in curves(folder).items()
    }


def thinned(points: Sequence[tuple[int, float]], most: int = POINTS) -> Curve:
    """At most so many points: of every stretch its lowest and its highest, so that no spike is lost."""
    if len(points) <= most:
        return list(points)
    width = len(points) / (most // 2 - 1)
    kept = {points[0][0]: points[0], points[-1][0]: points[-1]}
    for place in range(most // 2 - 1):
        stretch = points[int(place * width) : int((place + 1) * width)]
        for one in (min(stretch, key=lambda one: one[1]), max(stretch, key=lambda one: one[1])):
            kept[one[0]] = one
    return sorted(kept.values())


def run_rows(workspace: Workspace) -> list[dict[str, Any]]:
    """All runs of the workspace, the newest first."""
    queue = [run.folder for run in waiting(workspace.root)]
    return [
        {
            "folder": workspace.shown(run.folder),
            "state": run.state,
            "reason": run.reason,
            "step": run.step,
            "total_steps": run.total_steps,
            "loss": run.numbers.get("loss", run.numbers.get("train_loss")),
            "eval_loss": run.numbers.get("eval_loss"),
            "updated": run.updated,
            "place": queue.index(run.folder) + 1 if run.folder in queue else 0,
        }
        for run in find_runs(workspace.root)
    ]


def comparison(workspace: Workspace, names: Sequence[str]) -> dict[str, Any]:
    """Runs beside each other: differing keys, last numbers, curves.

    Raises:
        TunesmithError: a run is outside the workspace, or has no configuration.
    """
    folders = [workspace.inside(name) for name in names]
    states = [read_state(folder) for folder in folders]
    shown = [workspace.shown(folder) for folder in folders]
    labels = _labels(shown)
    keys = {name: [_cell(value) for value in values] for name, values in differences_of(folders).items()}
    metrics = sorted({name for state in states if state for name in state.numbers})
    numbers = {name: [state.numbers.get(name) if state else None for state in states] for name in metrics}
    series: dict[str, list[dict[str, Any]]] = {}
    for label, folder in zip(labels, folders, strict=True):
        for name, points in drawn(folder).items():
            series.setdefault(name, []).append({"label": label, "points": points})
    return {
        "runs": shown,
        "labels": labels,
        "states": [state.state if state else "none" for state in states],
        "keys": keys,
        "numbers": numbers,
        "series": series,
    }


def differences_of(folders: Sequence[Path]) -> dict[str, list[Any]]:
    """Key -> its value in each run, for keys that differ."""
    return differences([load_resolved(folder) for folder in folders])


def _labels(names: Sequence[str]) -> list[str]:
    """The ends of paths that tell runs apart."""
    for depth in range(1, 8):
        ends = ["/".join(name.split("/")[-depth:]) for name in names]
        if len(set(ends)) == len(set(names)):
            return ends
    return list(names)


def _cell(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, tuple | list) else str(value)
