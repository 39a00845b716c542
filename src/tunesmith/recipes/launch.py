"""Several training processes on one machine: started together, stopped at the same step, ended together.

torchrun is not used here: it gives processes 30 seconds to end, too few for a large checkpoint, and ends with a
traceback and status 1 whatever the cause was.
"""

from __future__ import annotations

import ctypes
import shlex
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import IO

import psutil

from tunesmith.config.schema import RunConfig
from tunesmith.core import env
from tunesmith.core.errors import EnvironmentValueError, TunesmithError
from tunesmith.core.log import get_logger
from tunesmith.core.net import listen_on
from tunesmith.core.runs import Run
from tunesmith.recipes.queue import PROGRAM

logger = get_logger(__name__)

GRACE = 10.0
"""Seconds in which the first process may say itself why it ends when another one has ended with an error."""
_HERE = "127.0.0.1"
_POLL = 0.1
_PR_SET_PDEATHSIG = 1
_N_LINES = 20
_ELASTIC = ("RDZV_ID", "MIN_NNODES", "MAX_NNODES", "MAX_RESTARTS")


class ProcessEndedError(TunesmithError):
    """One process of several ended with an error that the first one could not tell.

    Attributes:
        exit_code: of that process; 128 + the signal's number where one killed it.
    """

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code


@dataclass(frozen=True, slots=True)
class Plan:
    """Which processes a run consists of.

    Attributes:
        local: processes on this machine.
        nodes: machines.
        node: number of this machine, from 0.
        address: where the first machine's first process listens.
        port: on which port.
    """

    local: int
    nodes: int
    node: int
    address: str
    port: int

    @property
    def world(self) -> int:
        """Processes on all machines."""
        return self.local * self.nodes

    def variables(self, local_rank: int) -> dict[str, str]:
        """What torch.distributed reads in one process, as torchrun sets it."""
        n_cores = psutil.cpu_count() or 1
        return {
            "RANK": str(self.node * self.local + local_rank),
            "LOCAL_RANK": str(local_rank),
            "WORLD_SIZE": str(self.world),
            "LOCAL_WORLD_SIZE": str(self.local),
            "MASTER_ADDR": self.address,
            "MASTER_PORT": str(self.port),
            "OMP_NUM_THREADS": env.get("OMP_NUM_THREADS") or str(max(1, n_cores // self.local)),
            "TORCH_CPP_LOG_LEVEL": env.get("TORCH_CPP_LOG_LEVEL") or "ERROR",  # advice, a line a process
        }


def plan(config: RunConfig, words: Sequence[str]) -> Plan | None:
    """The processes that `NPROC_PER_NODE`, `NNODES` or the devices of this machine ask for; None: this process alone.

    Args:
        config: `use_cpu` makes the devices count for nothing.
        words: after `tunesmith train`, for messages.

    Raises:
        EnvironmentValueError: variables that do not fit each other or the machine.
    """
    if env.get("WORLD_SIZE") or not (config.do_train or config.do_eval):
        return None
    elastic = [name for name in _ELASTIC if env.get(name)]
    if elastic:
        raise EnvironmentValueError(
            f"the environment variable {elastic[0]} asks for processes that come and go, which tunesmith does not "
            f"start itself: torchrun ... -m tunesmith train {shlex.join(words)}"
        )
    nodes = env.whole_number("NNODES", 1, least=1)
    n_devices = 0 if config.use_cpu else _n_devices()
    local = env.whole_number("NPROC_PER_NODE", max(n_devices, 1), least=1)
    if 0 < n_devices < local:
        raise EnvironmentValueError(
            f"NPROC_PER_NODE={local} on a machine with {n_devices} device(s): each process needs one of its own "
            "(use_cpu: true trains without)"
        )
    if nodes * local == 1:
        return None
    if nodes == 1:
        return Plan(local, 1, 0, env.get("MASTER_ADDR") or _HERE, env.whole_number("MASTER_PORT", 0) or _free_port())
    return Plan(local, nodes, *_meeting_place(nodes))


def _n_devices() -> int:
    import torch

    return torch.accelerator.device_count() if torch.accelerator.is_available() else 0


def _meeting_place(nodes: int) -> tuple[int, str, int]:
    missing = [name for name in ("NODE_RANK", "MASTER_ADDR", "MASTER_PORT") if not env.get(name)]
    if missing:
        raise EnvironmentValueError(
            f"NNODES={nodes} needs {', '.join(missing)}, too: NODE_RANK counts the machines from 0, MASTER_ADDR and "
            "MASTER_PORT are where machine 0 is reached, the same on all"
        )
    node = env.whole_number("NODE_RANK", 0)
    if node >= nodes:
        raise EnvironmentValueError(f"NODE_RANK={node} of NNODES={nodes}: machines are counted from 0")
    return node, env.get("MASTER_ADDR") or "", env.whole_number("MASTER_PORT", 0, least=1)


def _free_port() -> int:
    with listen_on(_HERE, 0) as listener:
        return int(listener.getsockname()[1])


def launch(plan: Plan, config: RunConfig, words: Sequence[str]) -> int:
    """Runs `tunesmith train` in all processes of this machine and waits for them.

    Ctrl-C and SIGTERM are handed on to all of them; they agree on the step at which they stop. When one ends with an
    error, the others wait for it in vain: they are ended.

    Args:
        plan: the processes.
        config: for the run directory.
        words: after `tunesmith train`.

    Returns:
        0, or the exit status that the first process ended with after it had told why.

    Raises:
        ProcessEndedError: another one was the cause.
    """
    logger.info("training in %d processes%s", plan.world, f", {plan.local} of them here" if plan.nodes > 1 else "")
    group = _Group(plan, words)
    try:
        with group.signals_handed_on():
            first = group.wait()
    finally:
        group.kill()
    if first is None:
        return 0
    return group.explain(first, Run(Path(config.output_dir or ".")))


class _Group:
    """The processes of this machine; the first one speaks, what the others write is kept for the worst."""

    def __init__(self, plan: Plan, words: Sequence[str]) -> None:
        self._plan = plan
        self._said: list[IO[bytes]] = []
        self._processes: list[subprocess.Popen[bytes]] = []
        for rank in range(plan.local):
            self._processes.append(self._start(rank, words))

    def _start(self, rank: int, words: Sequence[str]) -> subprocess.Popen[bytes]:
        said = tempfile.TemporaryFile()  # noqa: SIM115  (lives as long as the process)
        self._said.append(said)
        out = None if rank == 0 else said
        return subprocess.Popen(
            [*PROGRAM, "train", *words],
            env=env.with_values(self._plan.variables(rank)),
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
            start_new_session=True,  # a terminal's Ctrl-C reaches this process alone, which hands it on once
            preexec_fn=_end_with_parent if sys.platform == "linux" else None,
        )

    @contextmanager
    def signals_handed_on(self) -> Iterator[None]:
        """SIGINT and SIGTERM go to all processes."""

        def hand_on(number: int, frame: FrameType | None) -> None:
            for process in self._processes:
                if process.poll() is None:
                    process.send_signal(number)

        old = {number: signal.signal(number, hand_on) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in old.items():
                signal.signal(number, handler)

    def wait(self) -> int | None:
        """Waits until all have ended well, or one has not: its number, or None."""
        first: int | None = None
        until = 0.0
        while True:
            codes = [process.poll() for process in self._processes]
            if first is None:
                failed = [rank for rank, code in enumerate(codes) if code]
                # Of several at once the killed one is the cause: the others lost their connection to it.
                first = min(failed, key=lambda rank: ((codes[rank] or 0) > 0, rank), default=None)
                until = time.monotonic() + GRACE
            if None not in codes or (first is not None and time.monotonic() > until):
                return first
            time.sleep(_POLL)

    def kill(self) -> None:
        """Ends what still runs."""
        for process in self._processes:
            if process.poll() is None:
                process.kill()
            process.wait()

    def explain(self, first: int, run: Run) -> int:
        """Says which process ended and how, unless the process that speaks has said it; the exit status."""
        codes = [process.returncode for process in self._processes]
        code = codes[first]
        if code > 0 and code == codes[0]:
            return code
        number = self._plan.node * self._plan.local + first
        how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit status {code}"
        reason = f"process {number} of {self._plan.world} (counted from 0) {how}" + self._last_words(first)
        status = 128 - code if code < 0 else code
        run.emit("failed", command="train", reason=reason)
        raise ProcessEndedError(reason, status)

    def _last_words(self, rank: int) -> str:
        self._said[rank].seek(0)
        lines = self._said[rank].read().decode(errors="replace").splitlines()[-_N_LINES:]
        return "; its last lines:" + "".join(f"\n  {line}" for line in lines) if lines else ""


def _end_with_parent() -> None:
    """Asks Linux for a SIGTERM when the parent dies, which stops training at a checkpoint."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
