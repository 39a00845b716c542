"""What a run directory says: where the run stands, its curves, its last lines. Reads only; writes nothing.

The state is not stored anywhere: it follows from the events and from whether a process holds the directory's lock, so
nobody's death can leave a wrong one behind.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from tunesmith.core.runs import EVENTS_FILE, LOG_FILE, Run

State = Literal["queued", "starting", "running", "stopping", "stopped", "finished", "failed", "cancelled"]
ACTIVE: frozenset[State] = frozenset({"queued", "starting", "running", "stopping"})
"""States that end by themselves."""
_NOT_CURVES = frozenset({"event", "time", "step", "total_steps", "epoch"})
_KEPT = {
    "train": "no checkpoint was written at the end",
    "predict": "the answers so far are kept; it can go on",
    "eval": "the answers so far are kept; it can go on",
    "data make": "the answers so far are kept; it can go on",
    "data dialogue": "the answers so far are kept; it can go on",
    "export": "nothing was written",
}
"""Command -> what is left when its process ends before its work does."""
_SIGNALS = {9: "SIGKILL; often the kernel's, when memory runs out", 15: "SIGTERM", 6: "SIGABRT", 11: "SIGSEGV"}


@dataclass(slots=True)
class RunState:
    """Where a run stands.

    Attributes:
        folder: the run directory.
        state: what it is doing.
        reason: why it failed or stopped; empty where there is nothing to say.
        command: what it does: `train`, `predict`, `eval`, `export`, `data make`, `data dialogue`.
        step: last optimizer step that was reported; of other work than training, what is counted there.
        total_steps: of the whole run; 0 while unknown.
        started: seconds since the epoch when work began last; 0: never.
        updated: of the last event.
        ended: of the end; 0 while it goes on.
        pid: of the process that works there, or did last; 0 where none has.
        queued_as: file of the configuration that waits for the queue, relative to the folder.
        numbers: last value of every curve.
        doing: words on the work under way; empty where the numbers say all.
    """

    folder: Path
    state: State = "queued"
    reason: str = ""
    command: str = "train"
    step: int = 0
    total_steps: int = 0
    started: float = 0.0
    updated: float = 0.0
    ended: float = 0.0
    pid: int = 0
    queued_as: str = ""
    numbers: dict[str, float] = field(default_factory=dict)
    doing: str = ""

    @property
    def is_active(self) -> bool:
        """Whether it is queued or at work."""
        return self.state in ACTIVE

    @property
    def kept(self) -> str:
        """What is left of the work when it is stopped now."""
        return _KEPT.get(self.command, "what was written is kept")

    def seconds_left(self, now: float) -> float | None:
        """Time to the last step at the mean pace since work began; None before the first report."""
        done = self.step - self._first_step
        if self.state != "running" or done <= 0 or not self.total_steps:
            return None
        return (self.updated - self.started) / done * (self.total_steps - self.step) - (now - self.updated)

    _first_step: int = 0
    _launched: int = 0

    def _take(self, event: dict[str, Any]) -> None:
        """Moves on by one event."""
        self.updated = float(event.get("time", self.updated))
        take = getattr(self, f"_on_{event.get('event')}", None)
        if take is not None:
            take(event)

    def _on_queued(self, event: dict[str, Any]) -> None:
        self.state, self.reason, self.ended = "queued", "", 0.0
        self._launched = 0
        self.queued_as = str(event.get("config", ""))
        self.command, self.doing = str(event.get("command", "train")), ""

    def _on_launched(self, event: dict[str, Any]) -> None:
        self._launched = int(event.get("pid", 0))

    def _on_start(self, event: dict[str, Any]) -> None:
        self.state, self.reason, self.ended, self.doing = "starting", "", 0.0, ""
        self.command, self.pid = str(event.get("command", "train")), int(event.get("pid", 0))
        self.started = self.updated

    def _on_train_begin(self, event: dict[str, Any]) -> None:
        self.state, self.started = "running", self.updated
        self.step = self._first_step = int(event.get("step", 0))
        self.total_steps = int(event.get("total_steps", 0))

    def _on_progress(self, event: dict[str, Any]) -> None:
        """Other work than training: something is counted."""
        if self.state == "starting" or self.total_steps != event.get("total"):
            self.state = "running" if self.state == "starting" else self.state
            self.started, self._first_step = self.updated, int(event.get("done", 0))
        self.step, self.total_steps = int(event.get("done", 0)), int(event.get("total", 0))
        self.doing = str(event.get("doing", ""))

    def _on_log(self, event: dict[str, Any]) -> None:
        self.step = int(event.get("step", self.step))
        self.total_steps = int(event.get("total_steps", self.total_steps))
        self.numbers |= {key: value for key, value in event.items() if key not in _NOT_CURVES}

    def _on_checkpoint(self, event: dict[str, Any]) -> None:
        self.step = int(event.get("step", self.step))

    def _on_train_end(self, event: dict[str, Any]) -> None:
        self._on_checkpoint(event)

    def _on_stop_asked(self, event: dict[str, Any]) -> None:
        if self.state in ("starting", "running"):
            self.state = "stopping"

    def _on_stopped(self, event: dict[str, Any]) -> None:
        is_training = "step" in event
        self._close("stopped", f"at step {event['step']}; a checkpoint was written" if is_training else self.kept)

    def _on_cancelled(self, event: dict[str, Any]) -> None:
        self._close("cancelled", "taken out of the queue")

    def _on_finished(self, event: dict[str, Any]) -> None:
        self._close("finished", "")

    def _on_failed(self, event: dict[str, Any]) -> None:
        self._close("failed", str(event.get("reason", "")))

    def _on_exited(self, event: dict[str, Any]) -> None:
        """The queue saw the process end; what the process said itself is better."""
        expected = self._launched if self.state == "queued" else self.pid
        is_other = event.get("pid", expected) != expected  # of an earlier process, while the run waits or works again
        if self.is_active and not is_other:
            self._on_gone(event.get("code"), str(event.get("reason", "")))

    def _on_gone(self, code: int | None = None, reason: str = "") -> None:
        if self.state == "stopping":
            self._close("stopped", self.kept)
        elif code is not None and code < 0:
            self._close(
                "failed", f"the process was killed by signal {-code} ({_SIGNALS.get(-code, 'see man 7 signal')})"
            )
        elif code:
            self._close("failed", reason or f"the process ended with exit status {code}")
        else:
            self._close("failed", "the process is gone without a word: killed (memory?), or the machine went down")

    def _close(self, state: State, reason: str) -> None:
        self.state, self.reason, self.ended = state, reason, self.updated


def read_state(folder: Path) -> RunState | None:
    """Where the run in `folder` stands; None where no run ever was."""
    if not (folder / EVENTS_FILE).is_file():
        return None
    run = Run(folder)
    was_alive = run.is_alive()  # asked first: who ends in between has written how
    state = RunState(folder)
    for event in run.events():
        state._take(event)
    is_at_work = state.state in ("starting", "running", "stopping")
    if is_at_work and not was_alive and not run.is_alive():
        state._on_gone()
    return state


def curves(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """Curve name -> (step, value), by step. Steps that were done again after a resume count once, as done last."""
    found: dict[str, dict[int, float]] = {}
    for event in Run(folder).events():
        if event.get("event") == "train_begin":
            first = int(event.get("step", 0))
            for points in found.values():
                for step in [step for step in points if step > first]:
                    del points[step]
        elif event.get("event") == "log" and "step" in event:
            for name, value in event.items():
                if name not in _NOT_CURVES and isinstance(value, int | float):
                    found.setdefault(name, {})[int(event["step"])] = float(value)
    return {name: sorted(points.items()) for name, points in found.items() if points}


def last_lines(folder: Path, count: int = 40) -> list[str]:
    """The end of what the run printed; a progress bar that wrote over its line shows as it looked last."""
    path = folder / LOG_FILE
    if not path.is_file():
        return []
    with path.open("rb") as handle:
        size = handle.seek(0, 2)
        handle.seek(max(0, size - 400 * count))
        text = handle.read().decode("utf-8", "replace")
    lines = [line.rstrip("\r").rsplit("\r", 1)[-1].rstrip() for line in text.split("\n")]
    return [line for line in lines if line][-count:]


def find_runs(root: Path, depth: int = 5) -> list[RunState]:
    """Every run below a folder, the newest first. Hidden folders, checkpoints and environments are passed over."""
    states = [state for folder in _folders(root, depth) if (state := read_state(folder)) is not None]
    return sorted(states, key=lambda state: state.updated, reverse=True)


def _folders(root: Path, depth: int) -> Iterable[Path]:
    yield root
    if depth == 0:
        return
    try:
        inside = sorted(entry for entry in root.iterdir() if entry.is_dir() and not entry.is_symlink())
    except OSError:
        return
    for folder in inside:
        name = folder.name
        is_other = name.startswith((".", "checkpoint-")) or name in ("node_modules", "__pycache__")
        if not is_other and not (folder / "pyvenv.cfg").exists():
            yield from _folders(folder, depth - 1)
