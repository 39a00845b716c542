"""A run is a directory with an append-only event file; the CLI, the studio and the API are views of it."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from tunesmith.core import env
from tunesmith.core.errors import Interrupted, TrainingError, TunesmithError
from tunesmith.core.machine import machine_error

EVENTS_FILE = "events.jsonl"
LOCK_FILE = ".run.lock"
LOG_FILE = "run.log"
"""What a run prints, where the queue started it."""
PROGRESS_SECONDS = 1.0
"""Progress is noted no more often."""


def write_atomic(path: Path, data: str | bytes) -> None:
    """Writes a file so that a crash leaves the old one or the new one, never half: temporary file, fsync, rename."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    payload = data.encode() if isinstance(data, str) else data
    with temporary.open("wb") as handle:
        handle.write(payload)
        handle.flush()
        os.fsync(handle.fileno())
    temporary.replace(path)


def write_json(path: Path, value: Any) -> None:
    """Writes `value` as indented JSON, atomically."""
    write_atomic(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def sync_path(path: Path) -> None:
    """Flushes a file to disk, or makes the renames in a folder durable."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_tree(folder: Path) -> None:
    """Flushes every file below `folder`, and the folders themselves, to disk."""
    for path in [*folder.rglob("*"), folder]:
        if not path.is_symlink():
            sync_path(path)


def append_line(path: Path, line: str, *, sync: bool = False) -> None:
    """Appends one line with one write call; a torn last line of a killed process is closed first.

    Args:
        path: made with its folder where it is not there.
        line: without its end.
        sync: do not return before it is on the disk.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+b") as handle:
        if handle.tell() > 0:
            handle.seek(-1, os.SEEK_END)
            if handle.read(1) != b"\n":
                line = "\n" + line
        handle.write(f"{line}\n".encode())
        if sync:
            handle.flush()
            os.fsync(handle.fileno())


def read_lines(path: Path) -> Iterator[dict[str, Any]]:
    """The JSON objects of a file of lines; a torn line is passed over, and a missing file has none."""
    if not path.exists():
        return
    with path.open(encoding="utf-8", errors="replace", newline="\n") as handle:
        for line in handle:
            try:
                value = json.loads(line)
            except ValueError:
                continue
            if isinstance(value, dict):
                yield value


class Lock:
    """A file lock that the system takes back when its process ends, however it ends. Forked children do not hold it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._handle: BinaryIO | None = None

    def take(self) -> bool:
        """Takes the lock; False where another holds it. Where the system has no such locks, it is always had."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        handle = self.path.open("ab")
        if not _lock(handle):
            handle.close()
            return False
        self._handle = handle
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=handle.close)
        return True

    def release(self) -> None:
        """Gives it back; nothing happens where it was not had."""
        if self._handle is not None:
            self._handle.close()
            self._handle = None


def is_locked(path: Path) -> bool:
    """Whether a living process holds the lock."""
    try:
        handle = path.open("rb")
    except OSError:
        return False
    with handle:
        return not _lock(handle, shared=True)


def _lock(handle: BinaryIO, *, shared: bool = False) -> bool:
    try:
        import fcntl
    except ImportError:
        return True
    try:
        fcntl.flock(handle, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def reason_of(error: BaseException) -> str:
    """What a reader is told: the message itself where it was written for users, else the kind of error before it."""
    known = error if isinstance(error, TunesmithError) else machine_error(error)
    return str(known) if known else f"{type(error).__name__}: {error}"


class Run:
    """The directory of one run.

    Events are JSON objects, one a line, with `event` (kind) and `time` (seconds since the epoch). A line is written
    with one write call, so that readers in other processes never see half of one that is followed by another. The
    process that works in the directory holds a lock there: whether a run is alive, the system says, not a file.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.events_path = folder / EVENTS_FILE
        self._lock = Lock(folder / LOCK_FILE)
        self._last = ""
        self._progress_at = -PROGRESS_SECONDS

    def begin(self, command: str) -> None:
        """Takes the directory for this process and notes the start.

        Raises:
            TrainingError: another process works in it.
        """
        if not self._lock.take():
            holder = next(
                (event.get("pid") for event in reversed(list(self.events())) if event["event"] == "start"), "?"
            )
            raise TrainingError(
                f"{self.folder}: another process ({holder}) works in this folder. Wait for it or stop it "
                f"(tunesmith runs stop {self.folder}), or take another folder"
            )
        self.emit("start", command=command, pid=os.getpid())

    def end(self) -> None:
        """Gives the directory back."""
        self._lock.release()

    @contextmanager
    def working(self, command: str) -> Iterator[None]:
        """Holds the directory while a command works in it, and notes how that ends.

        Raises:
            TrainingError: another process works in it.
        """
        if env.rank() == 0:
            self.begin(command)
        try:
            yield
            if env.rank() == 0:
                self.emit("finished", command=command)
        except (Interrupted, KeyboardInterrupt):
            if self._last != "stopped":  # training notes at which step
                self.emit("stopped", command=command)
            raise
        except BaseException as error:
            self.emit("failed", command=command, reason=reason_of(error))
            raise
        finally:
            self.end()

    def is_alive(self) -> bool:
        """Whether a process works in the directory."""
        return is_locked(self.folder / LOCK_FILE)

    def emit(self, event: str, **fields: Any) -> None:
        """Appends one event; a torn last line of a killed process is closed first."""
        self._last = event
        fact = {"event": event, "time": round(time.time(), 3), **fields}
        append_line(self.events_path, json.dumps(fact, ensure_ascii=False))

    def progress(self, done: int, total: int, doing: str = "") -> None:
        """Notes how far the work is, at most once a second, and its end.

        Args:
            done: of whatever is counted.
            total: how many there are.
            doing: words on how it looks so far.
        """
        now = time.monotonic()
        if done < total and now - self._progress_at < PROGRESS_SECONDS:
            return
        self._progress_at = now
        self.emit("progress", done=done, total=total, doing=doing)

    def events(self) -> Iterator[dict[str, Any]]:
        """All whole events; a torn line is passed over."""
        yield from read_lines(self.events_path)


def merge_results(folder: Path, name: str, metrics: dict[str, Any]) -> None:
    """Writes one command's metrics into `name` and adds them to all_results.json.

    Args:
        folder: the run directory.
        name: `train_results.json`, `eval_results.json` or `predict_results.json`.
        metrics: plain numbers and strings.
    """
    write_json(folder / name, dict(sorted(metrics.items())))
    everything = folder / "all_results.json"
    try:
        known = json.loads(everything.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        known = {}
    write_json(everything, dict(sorted({**known, **metrics}.items())))
