"""What happens between steps: the progress line, trainer_log.jsonl, the event file, stop signals, early stopping."""

from __future__ import annotations

import json
import signal
import sys
import time
from collections import deque
from collections.abc import Callable
from datetime import timedelta
from types import FrameType
from typing import Any

import psutil
import torch
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from tunesmith.core.log import get_logger
from tunesmith.core.runs import Run
from tunesmith.data.growing import check

logger = get_logger(__name__)

TRAINER_LOG = "trainer_log.jsonl"
_KNOWN = ("loss", "eval_loss", "grad_norm", "learning_rate", "epoch", "step", "num_input_tokens_seen", "total_flos")
_SPEEDS = ("_runtime", "_per_second")
_SPEEDS = ("_runtime", "_per_second")
_SHOWN = ("reward", "rewards/accuracies", "rewards/margins", "kl")


def metrics_of(logs: dict[str, Any]) -> dict[str, float]:
    """What an objective measured, among the entries of a log line; `accuracy` is that of rewards, too."""
    found = {
        name: value
        for name, value in logs.items()
        if isinstance(value, int | float) and name not in _KNOWN and not name.endswith(_SPEEDS) and name != "train_loss"
    }
    if "rewards/accuracies" in found:
        found.setdefault("accuracy", found["rewards/accuracies"])
    return found


def memory_gb() -> float:
    """What this process holds in GB: the most so far on its GPU, or without one now in the machine's memory."""
    on_gpu = torch.cuda.is_available()
    held = torch.cuda.max_memory_allocated() if on_gpu else psutil.Process().memory_info().rss
    return round(held / 1e9, 3)


def _clock(seconds: float) -> str:
    return str(timedelta(seconds=int(seconds)))


class Pace:
    """How fast the last steps went: time left and tokens a second, from a window that forgets a slow start.

    Args:
        tokens: gives (tokens seen, trained tokens seen) by this process.
    """

    WINDOW = 20

    def __init__(self, tokens: Callable[[], tuple[int, int]]) -> None:
        self.tokens = tokens
        self._marks: deque[tuple[float, int, int]] = deque(maxlen=self.WINDOW)

    def mark(self, step: int) -> None:
        """Notes that `step` is done, or that the run begins there."""
        self._marks.append((time.monotonic(), step, self.tokens()[0]))

    def seconds_left(self, total: int) -> float:
        """Seconds to step `total` at the pace of the window; 0 before the first step."""
        if len(self._marks) < 2 or self._marks[-1][1] == self._marks[0][1]:
            return 0.0
        (begin, first, _), (end, last, _) = self._marks[0], self._marks[-1]
        return (end - begin) / (last - first) * (total - last)

    def tokens_per_second(self) -> float:
        """Tokens a second within the window."""
        if len(self._marks) < 2:
            return 0.0
        (begin, _, first), (end, _, last) = self._marks[0], self._marks[-1]
        return (last - first) / max(end - begin, 1e-9)


class LogWriter(TrainerCallback):
    """trainer_log.jsonl and the event file: one line a log entry, written at once.

    Args:
        run: the run directory.
        pace: measures the last steps; this callback feeds it.
        with_tokens: whether to write throughput and total_tokens.
    """

    def __init__(self, run: Run, pace: Pace, with_tokens: bool) -> None:
        self._run = run
        self._pace = pace
        self._with_tokens = with_tokens
        self._started = time.monotonic()

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        self._started = time.monotonic()
        self._pace.mark(state.global_step)
        if state.is_world_process_zero:
            self._run.emit("train_begin", step=state.global_step, total_steps=state.max_steps)

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        self._pace.mark(state.global_step)

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, Any] | None = None,
        **_: Any,
    ) -> None:
        if not state.is_world_process_zero or not logs:
            return
        elapsed = max(time.monotonic() - self._started, 1e-9)
        entry: dict[str, Any] = {
            "current_steps": state.global_step,
            "total_steps": state.max_steps,
            "loss": logs.get("loss"),
            "eval_loss": logs.get("eval_loss"),
            "grad_norm": logs.get("grad_norm"),
            "lr": logs.get("learning_rate"),
            "epoch": round(state.epoch or 0.0, 4),
            "percentage": round(100 * state.global_step / state.max_steps, 2) if state.max_steps else 100.0,
            "elapsed_time": _clock(elapsed),
            "remaining_time": _clock(self._pace.seconds_left(state.max_steps)),
        }
        entry |= metrics_of(logs)
        if self._with_tokens:
            tokens, _trained = self._pace.tokens()
            entry |= {"throughput": round(tokens / elapsed, 2), "total_tokens": tokens}
        line = {key: value for key, value in entry.items() if value is not None}
        with (self._run.folder / TRAINER_LOG).open("a", encoding="utf-8") as handle:
            handle.write(json.dumps(line) + "\n")
        numbers = {key: value for key, value in logs.items() if isinstance(value, int | float)}
        if "loss" in numbers:
            numbers |= {"tokens_per_second": round(self._pace.tokens_per_second(), 1), "memory_gb": memory_gb()}
        self._run.emit("log", **numbers, step=state.global_step, total_steps=state.max_steps)

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        if state.is_world_process_zero:
            self._run.emit("checkpoint", step=state.global_step)

    def on_train_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        if state.is_world_process_zero:
            self._run.emit("train_end", step=state.global_step, total_steps=state.max_steps)


class ProgressBar(TrainerCallback):
    """A bar with loss, tokens a second and time left; plain lines at each log entry where there is no terminal."""

    def __init__(self, pace: Pace) -> None:
        self._pace = pace
        self._progress: Any = None
        self._task: Any = None

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        if not state.is_world_process_zero or not sys.stderr.isatty():
            return
        from rich.console import Console
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            Progress,
            TextColumn,
            TimeElapsedColumn,
            TimeRemainingColumn,
        )

        self._progress = Progress(
            TextColumn("train"),
            BarColumn(bar_width=30),
            MofNCompleteColumn(),
            TextColumn("loss {task.fields[loss]}"),
            TextColumn("{task.fields[speed]} tokens/s"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=Console(stderr=True),
        )
        self._task = self._progress.add_task(
            "train", total=state.max_steps, completed=state.global_step, loss="-", speed="-"
        )
        self._progress.start()

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        if self._progress is not None:
            self._progress.update(
                self._task, completed=state.global_step, speed=f"{self._pace.tokens_per_second():.0f}"
            )

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, Any] | None = None,
        **_: Any,
    ) -> None:
        logs = logs or {}
        if not state.is_world_process_zero:
            return
        if self._progress is not None and "loss" in logs:
            self._progress.update(self._task, loss=f"{logs['loss']:.4f}")
        elif "loss" in logs:
            shown = "".join(f"  {name} {logs[name]:.3f}" for name in _SHOWN if name in logs)
            logger.info(
                "step %d/%d  loss %.4f%s  lr %.3g  %.0f tokens/s  left %s",
                state.global_step,
                state.max_steps,
                logs["loss"],
                shown,
                logs.get("learning_rate", 0.0),
                self._pace.tokens_per_second(),
                _clock(self._pace.seconds_left(state.max_steps)),
            )
        evals = {
            key: value
            for key, value in logs.items()
            if key.startswith("eval_") and not key.endswith(_SPEEDS) and ("/" not in key or key.endswith(_SHOWN))
        }
        if evals:
            logger.info("step %d  %s", state.global_step, "  ".join(f"{k} {v:.4f}" for k, v in evals.items()))

    def close(self) -> None:
        """Takes the bar off the terminal; safe to call twice."""
        if self._progress is not None:
            self._progress.stop()
            self._progress = None

    def on_train_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        self.close()


class StopOnSignal(TrainerCallback):
    """SIGTERM and Ctrl-C: finish the step, write a checkpoint, stop. A second signal ends the process at once.

    Of several processes each stops at the step at which one of them does: else they would wait for each other.

    Attributes:
        caught: the signal's number, or None.
    """

    def __init__(self) -> None:
        self.caught: int | None = None
        self._old: dict[int, Any] = {}

    def install(self) -> None:
        """Takes over the two signals; call in the main thread."""
        for number in (signal.SIGTERM, signal.SIGINT):
            self._old[number] = signal.signal(number, self._handle)

    def restore(self) -> None:
        """Gives the signals back."""
        for number, handler in self._old.items():
            signal.signal(number, handler)
        self._old.clear()

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.caught is not None:
            self.restore()
            signal.raise_signal(number)
            return
        self.caught = number
        name = signal.Signals(number).name
        logger.warning("%s: finishing this step, then writing a checkpoint (again to stop at once)", name)

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        if args.world_size > 1:
            flag = torch.tensor(self.caught or 0, device=args.device)
            torch.distributed.all_reduce(flag, op=torch.distributed.ReduceOp.MAX)
            self.caught = int(flag) or None
        if self.caught is not None:
            control.should_save = True
            control.should_training_stop = True


class EarlyStop(TrainerCallback):
    """Stops when the watched metric has not improved for `patience` evaluations (`early_stopping_steps`)."""

    def __init__(self, patience: int) -> None:
        self._patience = patience
        self._best: float | None = None
        self._bad = 0

    def on_evaluate(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        metrics: dict[str, float] | None = None,
        **_: Any,
    ) -> None:
        name = args.metric_for_best_model or "loss"
        key = name if name.startswith("eval_") else f"eval_{name}"
        value = (metrics or {}).get(key)
        if value is None:
            return
        better = self._best is None or (value > self._best if args.greater_is_better else value < self._best)
        self._best, self._bad = (value, 0) if better else (self._best, self._bad + 1)
        if self._bad >= self._patience:
            logger.info("early stop: %s has not improved for %d evaluations", key, self._bad)
            control.should_training_stop = True


class RowsWatch(TrainerCallback):
    """Ends a run whose rows are tokenized beside it once one of them cannot be used.

    Args:
        rows: the training set.
    """

    def __init__(self, rows: Any) -> None:
        self.rows = rows

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Takes over the rows when they are there; raises DataError."""
        check(self.rows)
