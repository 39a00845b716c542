"""The queue of runs: one worker process a workspace starts them one after another, each as a command of its own.

A run waits in its own directory, as an event; the worker keeps nothing in memory that its death could lose.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from tunesmith.config.dotenv import is_from_environment
from tunesmith.config.dump import set_to_yaml
from tunesmith.config.load import load_config
from tunesmith.config.schema import RunConfig
from tunesmith.core.errors import ConfigError, Problem, TrainingError
from tunesmith.core.log import get_logger
from tunesmith.core.run_state import RunState, find_runs, last_lines, read_state
from tunesmith.core.runs import LOG_FILE, Lock, Run, is_locked, write_atomic
from tunesmith.recipes.jobs import job_of

logger = get_logger(__name__)

QUEUED_CONFIG = "queued.yaml"
"""In the run directory: what the queue will do; secrets stay in the environment."""
FOLDER = ".tunesmith"
PROGRAM = [sys.executable, "-m", "tunesmith"]
"""A process of its own for each run; the words of its job come behind."""
_DETACH = "import subprocess, sys; subprocess.Popen(sys.argv[1:], start_new_session=True)"
"""A parent that ends at once: the worker becomes nobody's child, and no page that started it has to bury it."""
_POLL_SECONDS = 0.5


def worker_lock(root: Path) -> Path:
    """The file whose lock the worker of a workspace holds."""
    return root / FOLDER / "queue.lock"


def enqueue(root: Path, words: Sequence[str], *, start: bool = True, command: str = "train") -> Path:
    """Puts a run at the end of the queue; a wrong configuration is refused here, not hours later.

    Args:
        root: the workspace; paths in the configuration start from here.
        words: as for `tunesmith COMMAND`.
        start: make sure that a worker takes it.
        command: what is to be done, one of `jobs.JOBS`.

    Returns:
        The run directory.

    Raises:
        ConfigError: what the command would refuse.
        TrainingError: a run is queued or at work in its folder.
    """
    return enqueue_config(root, load_config(words, job_of(command)[0]), start=start)


def enqueue_config(root: Path, config: RunConfig, *, start: bool = True) -> Path:
    """`enqueue` of a configuration that is made and checked already, for the command that it was made for.

    Raises:
        ConfigError: a secret in it.
        TrainingError: a run is queued or at work in its folder.
    """
    command, job = job_of(config.command)
    if config.do_predict and not config.do_train and not config.do_eval:
        command = "predict"
    folder = job.folder(config)
    state = read_state(folder)
    if state is not None and state.is_active:
        raise TrainingError(f"{folder}: a run is {state.state} there; take another folder, or stop it first")
    _refuse_secrets(config)
    write_atomic(folder / QUEUED_CONFIG, set_to_yaml(config))
    Run(folder).emit("queued", config=QUEUED_CONFIG, command=command)
    if start:
        ensure_worker(root)
    return folder


def _refuse_secrets(config: RunConfig) -> None:
    from tunesmith.config.schema import KEYS

    given = [name for name, known in KEYS.items() if known.secret and getattr(config, name) is not None]
    found = [name for name in given if not is_from_environment(config.sources.get(name, ""))]
    if found:
        fix = "a queued run waits in a file, where secrets are never written: set it in the environment (HF_TOKEN)"
        raise ConfigError([Problem(f"{name} cannot be queued", config.sources.get(name, name), fix) for name in found])


def ensure_worker(root: Path) -> None:
    """Starts the worker of a workspace unless one is at work; it outlives this process."""
    if is_locked(worker_lock(root)):
        return
    log = root / FOLDER / "queue.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as out:
        subprocess.run(
            [sys.executable, "-c", _DETACH, sys.executable, "-m", "tunesmith", "runs", "work"],
            cwd=root,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
            check=True,
        )


def work(root: Path) -> int:
    """Does what is queued, one run at a time, until nothing waits.

    Returns:
        How many runs it started.
    """
    lock, count = Lock(worker_lock(root)), 0
    while lock.take():
        while (run := _next(root)) is not None:
            if any(state.state in ("starting", "running", "stopping") for state in find_runs(root)):
                time.sleep(_POLL_SECONDS)  # one that the queue did not start, or that outlived an earlier worker
                continue
            _carry_out(root, run)
            count += 1
        lock.release()
        if _next(root) is None:  # what came while the lock was still held is taken, too
            break
    return count


def waiting(root: Path) -> list[RunState]:
    """Queued runs, the next one first."""
    return sorted((run for run in find_runs(root) if run.state == "queued"), key=lambda run: run.updated)


def _next(root: Path) -> RunState | None:
    return next(iter(waiting(root)), None)


def _carry_out(root: Path, state: RunState) -> None:
    """Does one run and notes how its process ended."""
    folder = state.folder
    logger.info("%s: %s", folder, state.command)
    run = Run(folder)
    words = job_of(state.command)[1].command_line(folder / QUEUED_CONFIG, folder)
    with (folder / LOG_FILE).open("ab") as out:
        child = subprocess.Popen(
            [*PROGRAM, *words],
            cwd=root,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
            start_new_session=True,
        )
        run.emit("launched", pid=child.pid)
        code = child.wait()
    run.emit("exited", pid=child.pid, code=code, reason=_said(folder) if code else "")


def _said(folder: Path) -> str:
    """The error that a process ended with, from its last words."""
    lines = last_lines(folder)
    begins = [place for place, line in enumerate(lines) if line.startswith("error:")]
    return "\n".join(lines[begins[-1] :]).removeprefix("error: ") if begins else ""
