"""`tunesmith runs`: what was trained, measured, exported and made in this workspace, what is at work, what waits."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunesmith.cli.words import take_switch, take_value
from tunesmith.core import env
from tunesmith.core.errors import TunesmithError
from tunesmith.core.lazy import nearest

if TYPE_CHECKING:
    from tunesmith.core.run_state import RunState

_USAGE = """\
usage: tunesmith runs ACTION ...

  list [--json]                      every run below this folder, the newest first
  show RUN [--json]                  where it stands, its last numbers and lines
  queue CONFIG [key=value]...        train when those before it are done; --command eval, export, "data make" or
                                     "data dialogue" does that instead
  sweep CONFIG key=a,b [key=c,d]...  queue one run for each combination of values
  stop RUN [--now]                   write a checkpoint and end; --now kills; a waiting run is taken out of the queue
  resume RUN                         go on from the newest checkpoint
  clone RUN OUTPUT_DIR [key=value]   the same configuration with changes
  compare RUN RUN...  [--json]       differing keys and last numbers side by side
  work                               do what waits, then end (queue starts this in the background)

RUN is a run's folder, or the end of its path. TUNESMITH_WORKSPACE names the workspace; default: this folder.
"""


def main(words: Sequence[str]) -> None:
    """Does one action."""
    if not words or words[0] in ("-h", "--help"):
        print(_USAGE, end="")
        return
    action, *rest = words
    if action not in _ACTIONS:
        near = nearest(action, list(_ACTIONS))
        hint = f"did you mean {near}? " if near else ""
        raise TunesmithError(f"runs does not know {action!r}: {hint}tunesmith runs -h lists the actions")
    workspace = env.workspace()
    if not workspace.is_dir():
        raise TunesmithError(f"TUNESMITH_WORKSPACE: there is no folder {workspace}")
    rest = [str(Path(word).resolve()) if word.endswith((".yaml", ".yml", ".json")) else word for word in rest]
    os.chdir(workspace)
    _ACTIONS[action](rest)


def _need(words: list[str], count: int, usage: str) -> None:
    if len(words) < count:
        raise TunesmithError(f"write tunesmith runs {usage}")


def _list(words: list[str]) -> None:
    from tunesmith.core.run_state import find_runs

    as_json = take_switch(words, "--json")
    folder = Path(words[0] if words else ".").expanduser()
    if not folder.is_dir():
        raise TunesmithError(f"runs list: there is no folder {folder}")
    runs = find_runs(folder)
    if as_json:
        print(json.dumps([_as_json(run) for run in runs], ensure_ascii=False))
        return
    if not runs:
        where = "this folder" if folder == Path() else folder
        print(f"no run below {where} yet: tunesmith train CONFIG, or tunesmith runs queue CONFIG")
        return
    rows = [("RUN", "STATE", "STEP", "LOSS", "LAST EVENT", "")]
    for run in runs:
        step = f"{run.step}/{run.total_steps}" if run.total_steps else ""
        loss = run.numbers.get("loss", run.numbers.get("train_loss"))
        updated = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(run.updated))
        rows.append(
            (
                str(run.folder),
                run.state,
                step,
                "" if loss is None else f"{loss:.4f}",
                updated,
                run.reason.replace("\n", " ")[:60],
            )
        )
    widths = [max(len(row[place]) for row in rows) for place in range(5)]
    for row in rows:
        print("  ".join([*(text.ljust(width) for text, width in zip(row, widths, strict=False)), row[5]]).rstrip())


def _as_json(run: RunState) -> dict[str, Any]:
    names = ("state", "reason", "command", "step", "total_steps", "started", "updated", "ended", "pid", "numbers")
    return {"folder": str(run.folder), **{name: getattr(run, name) for name in names}}


def _show(words: list[str]) -> None:
    from tunesmith.core.run_state import last_lines

    as_json = take_switch(words, "--json")
    _need(words, 1, "show RUN")
    run = _run(words[0])
    if as_json:
        print(json.dumps(_as_json(run), ensure_ascii=False))
        return
    work = "" if run.command == "train" else f"{run.command}, "
    print(f"{run.folder}: {work}{run.state}{f', {run.reason}' if run.reason else ''}")
    if run.total_steps:
        left = run.seconds_left(time.time())
        rest = f", about {max(left, 0) / 60:.0f} min left" if left is not None else ""
        print(f"{'step' if run.command == 'train' else 'done:'} {run.step} of {run.total_steps}{rest}")
    if run.doing:
        print(f"  {run.doing}")
    for name, value in sorted(run.numbers.items()):
        print(f"  {name:24} {value:.6g}")
    lines = last_lines(run.folder, 12)
    if lines:
        print("last lines:", *(f"  {line}" for line in lines), sep="\n")


def _run(name: str) -> RunState:
    from tunesmith.recipes.runs import state_of

    return state_of(name, Path())


def _queue(words: list[str]) -> None:
    from tunesmith.recipes.queue import enqueue, waiting

    command = take_value(words, "--command") or "train"
    _need(words, 1, "queue CONFIG [key=value]...")
    folder = enqueue(Path(), words, command=command)
    place = next((place for place, run in enumerate(waiting(Path()), 1) if run.folder == folder), 0)
    print(f"{folder}: {f'number {place} in the queue' if place else 'begins'}; tunesmith runs show {folder}")


def _sweep(words: list[str]) -> None:
    from tunesmith.recipes.runs import sweep

    _need(words, 2, "sweep CONFIG key=a,b [key=c,d]...")
    pairs = [word.removeprefix("--").partition("=") for word in words[1:]]
    choices = {key: value.split(",") for key, _, value in pairs if "," in value}
    if not choices:
        raise TunesmithError("sweep needs a key with several values, such as learning_rate=1e-4,2e-4")
    fixed = [f"{key}={value}" for key, _, value in pairs if "," not in value]
    for folder in sweep(Path(), [words[0], *fixed], choices):
        print(f"{folder}: queued")


def _stop(words: list[str]) -> None:
    from tunesmith.recipes.runs import stop

    now = take_switch(words, "--now")
    _need(words, 1, "stop RUN [--now]")
    print(stop(_run(words[0]), now=now))


def _resume(words: list[str]) -> None:
    from tunesmith.recipes.runs import resume

    _need(words, 1, "resume RUN")
    print(f"{resume(_run(words[0]), Path())}: queued")


def _clone(words: list[str]) -> None:
    from tunesmith.recipes.runs import clone

    _need(words, 2, "clone RUN OUTPUT_DIR [key=value]...")
    print(f"{clone(_run(words[0]), Path(), words[1], words[2:])}: queued")


def _compare(words: list[str]) -> None:
    from tunesmith.recipes.runs import differences, load_resolved

    as_json = take_switch(words, "--json")
    _need(words, 2, "compare RUN RUN...")
    runs = [_run(word) for word in words]
    keys = differences([load_resolved(run.folder) for run in runs])
    names = sorted({name for run in runs for name in run.numbers})
    numbers: dict[str, list[Any]] = {name: [run.numbers.get(name) for run in runs] for name in names}
    if as_json:
        folders = [str(run.folder) for run in runs]
        print(json.dumps({"runs": folders, "keys": keys, "numbers": numbers}, ensure_ascii=False, default=str))
        return
    table = [("", *(run.folder.name for run in runs)), ("state", *(run.state for run in runs))]
    table += [(name, *(str(value) for value in values)) for name, values in keys.items()]
    table += [
        (name, *("" if value is None else f"{value:.6g}" for value in values)) for name, values in numbers.items()
    ]
    widths = [max(len(row[place]) for row in table) for place in range(len(runs) + 1)]
    for row in table:
        print("  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip())


def _work(words: list[str]) -> None:
    from tunesmith.recipes.queue import work

    print(f"{work(Path())} runs were done")


_ACTIONS: dict[str, Callable[[list[str]], None]] = {
    "list": _list,
    "show": _show,
    "queue": _queue,
    "sweep": _sweep,
    "stop": _stop,
    "resume": _resume,
    "clone": _clone,
    "compare": _compare,
    "work": _work,
}
