"""What can be done with runs: stop, resume, clone, compare. The command line and the studio both call these."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any

from tunesmith.config.build import Checks
from tunesmith.config.load import load_config
from tunesmith.config.schema import KEYS, RunConfig
from tunesmith.core.errors import TrainingError, TunesmithError
from tunesmith.core.lazy import nearest
from tunesmith.core.run_state import RunState, find_runs, read_state
from tunesmith.core.runs import Run
from tunesmith.recipes.jobs import job_of
from tunesmith.recipes.queue import QUEUED_CONFIG, enqueue

_TECHNICAL = frozenset(
    {"output_dir", "save_dir", "run_name", "overwrite_output_dir", "resume_from_checkpoint", "config_path"}
)


def state_of(name: str, root: Path) -> RunState:
    """The run in a folder.

    Args:
        name: the folder, or the end of the path of exactly one run below `root`.
        root: the workspace.

    Raises:
        TunesmithError: no run there; the nearest names are in the message.
    """
    state = read_state(Path(name))
    if state is not None:
        return state
    runs = find_runs(root)
    ending = [run for run in runs if run.folder.parts[-len(Path(name).parts) :] == Path(name).parts]
    if len(ending) == 1:
        return ending[0]
    if ending:
        raise TunesmithError(f"{name} is the end of several: {', '.join(str(run.folder) for run in ending)}")
    near = nearest(Path(name).name, [run.folder.name for run in runs])
    hint = f"did you mean {near}? " if near else ""
    raise TunesmithError(f"there is no run {name}: {hint}tunesmith runs list shows them")


def stop(state: RunState, *, now: bool = False) -> str:
    """Asks a run to write a checkpoint and end, or takes it out of the queue.

    Args:
        state: of the run.
        now: kill it; what came after the last checkpoint is lost.

    Returns:
        What was done, for the user.

    Raises:
        TrainingError: nothing is at work there.
    """
    run = Run(state.folder)
    if state.state == "queued":
        run.emit("cancelled")
        return f"{state.folder}: taken out of the queue"
    if not state.is_active or not state.pid or not run.is_alive():
        raise TrainingError(f"{state.folder}: nothing to stop, the run is {state.state}")
    if state.state == "stopping" and not now:  # a second signal would end it at once, without the checkpoint
        return f"{state.folder}: it is stopping already; --now kills it"
    run.emit("stop_asked", now=now)
    os.kill(state.pid, signal.SIGKILL if now else signal.SIGTERM)
    if now:
        return f"{state.folder}: killed; it can go on from what was written"
    if state.command == "train":
        return f"{state.folder}: it writes a checkpoint after this step and ends"
    return f"{state.folder}: it ends; {state.kept}"


def wait(state: RunState, seconds: float) -> RunState:
    """The run once it is no longer active, or after some time."""
    until = time.monotonic() + seconds
    found = state
    while found.is_active and time.monotonic() < until:
        time.sleep(0.1)
        found = read_state(state.folder) or found
    return found


def config_file(folder: Path, command: str = "train") -> Path:
    """The configuration that a run ran with, or will run with.

    Args:
        folder: the run directory.
        command: what the run does.

    Raises:
        TunesmithError: it has none.
    """
    names = (*job_of(command)[1].configs, QUEUED_CONFIG)
    found = [folder / name for name in names if (folder / name).is_file()]
    if not found:
        raise TunesmithError(f"{folder} holds no configuration ({' or '.join(names)}): {command} never began there")
    return found[0]


def resume(state: RunState, root: Path) -> Path:
    """Queues a run again; training goes on from its newest whole checkpoint, or starts over where it has none.

    Raises:
        TrainingError: it is queued or at work.
    """
    command, _ = job_of(state.command)
    file = str(config_file(state.folder, command))
    if command != "train":
        return enqueue(root, [file], command=command)
    has_checkpoint = any(state.folder.glob("checkpoint-*"))
    words = [file, "overwrite_output_dir=false", f"output_dir={state.folder}"]
    return enqueue(root, [*words, "resume_from_checkpoint=true"] if has_checkpoint else words)


def clone(state: RunState, root: Path, output_dir: str, changes: Sequence[str]) -> Path:
    """Queues a run with the configuration of another and some changes.

    Args:
        state: of the run to copy.
        root: the workspace.
        output_dir: of the new run; of an export or an evaluation its `export_dir` or `save_dir`.
        changes: `key=value` words.
    """
    command, job = job_of(state.command)
    fixed = [f"{job.folder_key}={output_dir}", *(["resume_from_checkpoint=null"] if command == "train" else [])]
    return enqueue(root, [str(config_file(state.folder, command)), *fixed, *changes], command=command)


def sweep(root: Path, words: Sequence[str], choices: Mapping[str, Sequence[str]]) -> list[Path]:
    """Queues a run for each combination of values; each gets a folder of its own below output_dir.

    Args:
        root: the workspace.
        words: as for `tunesmith train`.
        choices: key -> values.

    Raises:
        ConfigError: a combination that `tunesmith train` would refuse; then nothing is queued.
    """
    base = Path(load_config(words, "train").output_dir or ".")
    runs = []
    for name, values in combinations(choices):
        pairs = [f"{key}={value}" for key, value in values.items()]
        runs.append([*words, *pairs, f"output_dir={base / name}"])
    for run in runs:
        load_config(run, "train")
    return [enqueue(root, run) for run in runs]


def combinations(choices: Mapping[str, Sequence[str]]) -> list[tuple[str, dict[str, str]]]:
    """Every combination of values: the name of its folder, and key -> value."""
    found = []
    for values in product(*choices.values()):
        pairs = dict(zip(choices, values, strict=True))
        found.append(("_".join(f"{key}={value}" for key, value in pairs.items()).replace("/", "-"), pairs))
    return found


def load_resolved(folder: Path) -> RunConfig:
    """The configuration of a run; that its data or model may be gone by now is no error."""
    state = read_state(folder)
    command, _ = job_of(state.command if state else "train")
    return load_config([str(config_file(folder, command))], command, Checks(rules=False))


def differences(configs: Sequence[RunConfig]) -> dict[str, list[Any]]:
    """Key -> its value in each run, for the keys in which the runs differ; paths of the run itself are left out."""
    found = {}
    for name in KEYS:
        values = [getattr(config, name) for config in configs]
        if name not in _TECHNICAL and any(value != values[0] for value in values[1:]):
            found[name] = values
    return found
