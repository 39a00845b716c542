"""Processes that tokenize beside this one: row numbers go in, packed rows and their accounting come out, in order."""

from __future__ import annotations

import gc
import multiprocessing
import os
import signal
import sys
import traceback
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from multiprocessing import connection
from typing import Any

from tunesmith.core import env
from tunesmith.core.errors import DataError, Problem, ProblemsError
from tunesmith.data.parts import Part
from tunesmith.data.report import DatasetReport
from tunesmith.data.rows import TokenizedRows

Shard = tuple[TokenizedRows, DatasetReport]
"""Usable rows, and what became of all that were read for them."""
MOST = 8
"""Processes where the configuration names no number."""
_AHEAD = 2
"""Shards for each process that may wait for an earlier one."""
_PATIENCE = 5.0


def can_fork() -> bool:
    """Whether processes can be had that share the files and the tokenizer of this one."""
    return sys.platform == "linux"


def available_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@dataclass(frozen=True, slots=True)
class _Task:
    """Rows of the data set `name` from `start` up to `stop`, and the place of the answer."""

    order: int
    name: str
    start: int
    stop: int


@dataclass(slots=True, eq=False)
class _Worker:
    """A process, the end of its pipe, and the rows that it is at."""

    process: Any
    pipe: Any
    task: _Task | None = None


class Workers:
    """Forked processes; each holds what this one held when it was made.

    Args:
        parts: data sets by a name of the caller's choice.
        count: processes.
        niceness: added to that of this process, for work that nobody waits for.

    Attributes:
        parts: as given.
    """

    def __init__(self, parts: Mapping[str, Part], count: int, niceness: int = 0) -> None:
        self.parts = dict(parts)
        context = multiprocessing.get_context("fork")
        self._workers: list[_Worker] = []
        for _ in range(count):
            ours, theirs = context.Pipe()
            process = context.Process(target=_serve, args=(theirs, self.parts, os.getpid(), niceness), daemon=True)
            with warnings.catch_warnings():
                # Newer Pythons warn of threads; the processes use none of this one's locks but the interpreter's own.
                warnings.simplefilter("ignore", DeprecationWarning)
                process.start()
            theirs.close()
            self._workers.append(_Worker(process, ours))

    def __len__(self) -> int:
        return len(self._workers)

    def __contains__(self, name: str) -> bool:
        return name in self.parts

    def shards(self, name: str, first: int, size: int) -> Iterator[Shard]:
        """The rows of one data set from number `first` on, `size` at a time.

        Raises:
            DataError: a process died; its rows are named.
        """
        count = len(self.parts[name])
        starts = range(first, count, size)
        tasks = [_Task(order, name, start, min(start + size, count)) for order, start in enumerate(starts)]
        found: dict[int, Shard] = {}
        given = taken = 0
        while taken < len(tasks):
            for worker in self._workers:
                if worker.task is None and given < min(len(tasks), taken + _AHEAD * len(self)):
                    worker.task = tasks[given]
                    worker.pipe.send(tasks[given])
                    given += 1
            if taken in found:
                yield found.pop(taken)
                taken += 1
                continue
            found |= self._wait()

    def _wait(self) -> dict[int, Shard]:
        """What is ready of the shards under way, by their order."""
        busy = [worker for worker in self._workers if worker.task is not None]
        connection.wait([end for worker in busy for end in (worker.pipe, worker.process.sentinel)])
        found = {}
        for worker in busy:
            if worker.task is None or not (worker.pipe.poll() or not worker.process.is_alive()):
                continue
            try:
                rows, report, fault = worker.pipe.recv()
            except (EOFError, ConnectionError) as error:
                raise self._death(worker) from error
            _raise(fault)
            found[worker.task.order] = (rows, report)
            worker.task = None
        return found

    def _death(self, worker: _Worker) -> DataError:
        worker.process.join(_PATIENCE)
        task, code = worker.task, worker.process.exitcode
        if task is None:
            raise AssertionError("a process without work is not waited for")
        part = self.parts[task.name]
        how = f"signal {-code}" if code is not None and code < 0 else f"exit status {code}"
        where = f"{part.source(task.start)} to {part.source(task.stop - 1).row}"
        fix = "was it out of memory? preprocessing_num_workers: 1 shows the cause, preprocessing_batch_size: 1 the row"
        return DataError([Problem(f"a process that prepares data died ({how}) at these rows", where, fix)])

    def close(self) -> None:
        """Ends the processes, whatever they are at."""
        for worker in self._workers:
            worker.process.terminate()
        for worker in self._workers:
            worker.process.join()
            worker.pipe.close()
        self._workers = []


def _raise(fault: list[Problem] | str | None) -> None:
    if isinstance(fault, str):
        raise RuntimeError(f"in a process that prepares data:\n{fault}")
    if fault:
        raise DataError(fault)


def _serve(pipe: Any, parts: Mapping[str, Part], parent: int, niceness: int) -> None:
    """The life of a process: until it is told to end, or the one that made it is gone."""
    os.nice(niceness)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    env.override("TOKENIZERS_PARALLELISM", "false")  # the tokenizer's threads were not forked
    gc.freeze()
    gc.set_threshold(100_000)
    while True:
        while not pipe.poll(_PATIENCE):
            if os.getppid() != parent:
                return
        task: _Task = pipe.recv()
        part = parts[task.name]
        report = part.new_report()
        try:
            answer: Any = (part.tokenize(range(task.start, task.stop), report), report, None)
        except ProblemsError as error:
            answer = (None, None, error.problems)
        except Exception:
            answer = (None, None, traceback.format_exc())
        pipe.send(answer)
