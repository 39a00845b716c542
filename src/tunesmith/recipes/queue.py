"""The queue of runs: one worker process a workspace starts them one after another, each as its own `tunesmith train`.

A run waits in its own directory, as an event; the worker keeps nothing in memory that its death could lose.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from tunesmith.config.load import load_config
from tunesmith.config.schema import RunConfig
from tunesmith.core.errors import ConfigError, Problem, TrainingError
from tunesmith.core.log import get_logger
from tunesmith.core.run_state import RunState, find_runs, last_lines, read_state
from tunesmith.core.runs import LOG_FILE, Lock, Run, is_locked, write_atomic

logger = get_logger(__name__)

QUEUED_CONFIG = "queued.yaml"
"""In the run directory: what the queue will train; secrets stay in the environment."""
FOLDER = ".tunesmith"
TRAIN = [sys.executable, "-m", "tunesmith", "train"]
"""A process of its own for each run; its configuration comes behind."""
_DETACH = "import subprocess, sys; subprocess.Popen(sys.argv[1:], start_new_session=True)"
"""A parent that ends at once: the worker becomes nobody's child, and no page that started it has to bury it."""
_POLL_SECONDS = 0.5


def worker_lock(root: Path) -> Path:
    """The file whose lock the worker of a workspace holds."""
    return root / FOLDER / "queue.lock"


def enqueue(root: Path, words: Sequence[str], *, start: bool = True) -> Path:
    """Puts a run at the end of the queue; a wrong configuration is refused here, not hours later.

    Args:
        root: the workspace; paths in the configuration start from here.
        words: as for `tunesmith train`.
        start: make sure that a worker takes it.

    Returns:
        The run directory.

    Raises:
        ConfigError: what `tunesmith train` would refuse.
        TrainingError: a run is queued or at work in its output_dir.
    """
    return enqueue_config(root, load_config(words, "train"), start=start)


def enqueue_config(root: Path, config: RunConfig, *, start: bool = True) -> Path:
    """`enqueue` of a configuration that is there and checked already."""
    folder = Path(config.output_dir or ".")
    state = read_state(folder)
    if state is not None and state.is_active:
        raise TrainingError(f"{folder}: a run is {state.state} there; take another output_dir, or stop it first")
    _refuse_secrets(config)
    write_atomic(folder / QUEUED_CONFIG, config.to_yaml())
    Run(folder).emit("queued", config=QUEUED_CONFIG)
    if start:
        ensure_worker(root)
    return folder


def _refuse_secrets(config: RunConfig) -> None:
    from tunesmith.config.schema import KEYS

    found = [name for name, known in KEYS.items() if known.secret and getattr(config, name) is not None]
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
    """Trains what is queued, one run at a time, until nothing waits.

    Returns:
        How many runs it started.
    """
    lock, count = Lock(worker_lock(root)), 0
    while lock.take():
        while (run := _next(root)) is not None:
            if any(state.state in ("starting", "running", "stopping") for state in find_runs(root)):
                time.sleep(_POLL_SECONDS)  # one that the queue did not start, or that outlived an earlier worker
                continue
            _train(root, run)
            count += 1
        lock.release()
        if _next(root) is None:  # what came while the lock was still held is taken, too
            break
    return count


def waiting(root: Path) -> list[RunState]:
    """Queued runs, the next one first."""
    return sorted((run for run in find_runs(root) if run.state == "queued"), key=lambda run: run.updated)


def _next(root: Path) -> Path | None:
    return next((run.folder for run in waiting(root)), None)


def _train(root: Path, folder: Path) -> None:
    """Trains one run and notes how its process ended."""
    logger.info("training %s", folder)
    run = Run(folder)
    with (folder / LOG_FILE).open("ab") as out:
        child = subprocess.Popen(
            [*TRAIN, str((folder / QUEUED_CONFIG).resolve())],
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
