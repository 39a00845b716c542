"""An engine in a thread of its own, for asyncio front ends: a bounded queue, cancellation, statistics. No HTTP here."""

from __future__ import annotations

import asyncio
import queue
import statistics
import threading
import time
from collections import deque
from collections.abc import AsyncIterator, Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

from tunesmith.core.errors import BusyError, TunesmithError
from tunesmith.core.log import get_logger
from tunesmith.inference.engine import Completion, Delta, EngineStats, GenerationRequest, completion_of

logger = get_logger(__name__)
T = TypeVar("T")

RATE_WINDOW = 10.0
"""Seconds that tokens/s is taken over."""
TTFT_WINDOW = 256
"""Requests that times to the first token are taken over."""


class Served(Protocol):
    """The part of an engine that the runner uses."""

    def submit(self, request: GenerationRequest) -> int: ...

    def cancel(self, request_id: int) -> None: ...

    def step(self) -> list[Delta]: ...

    def stats(self) -> EngineStats: ...


class EngineFailedError(RuntimeError):
    """The engine raised while it worked: our fault or the machine's, never the request's."""


@dataclass(frozen=True, slots=True)
class RunnerStats:
    """How the runner does.

    Attributes:
        engine: the engine's own counters.
        queued: answers that have not begun, wherever they wait.
        running: answers under way.
        tokens_per_second: over the last RATE_WINDOW seconds.
        first_token_seconds: from submission to the first token, one for each of the last requests, in order.
        finished: requests that were answered.
        cancelled: requests that were cancelled.
        refused: requests that found the queue full.
        failed: requests that an error of the engine ended.
    """

    engine: EngineStats
    queued: int
    running: int
    tokens_per_second: float
    first_token_seconds: tuple[float, ...]
    finished: int
    cancelled: int
    refused: int
    failed: int

    @property
    def first_token_p50(self) -> float:
        """Median of `first_token_seconds`; 0 before the first."""
        return statistics.median(self.first_token_seconds) if self.first_token_seconds else 0.0


class Ticket:
    """One request in the runner's hands: an asynchronous iterator of its deltas. Belongs to one event loop.

    Leaving the loop over it early does not cancel by itself: use `async with`, or call `cancel`.
    """

    def __init__(self, request: GenerationRequest, runner: EngineRunner) -> None:
        self.request = request
        self.submitted_at = time.monotonic()
        self._runner = runner
        self._loop = asyncio.get_running_loop()
        self._arrived: asyncio.Queue[Delta | BaseException | None] = asyncio.Queue()
        self._unfinished = request.sampling.n
        self._is_over = False

    async def __aenter__(self) -> Ticket:
        return self

    async def __aexit__(self, *error: object) -> None:
        self.cancel()

    def __aiter__(self) -> AsyncIterator[Delta]:
        return self

    async def __anext__(self) -> Delta:
        if self._is_over or not self._unfinished:
            self._is_over = True
            raise StopAsyncIteration
        item = await self._arrived.get()
        if isinstance(item, Delta):
            self._unfinished -= item.finish_reason is not None
            return item
        self._is_over = True
        if item is None:
            raise StopAsyncIteration
        raise item

    def cancel(self) -> None:
        """Ends the request and frees its place; nothing happens when it is over."""
        self._runner.cancel(self)

    async def completions(self) -> list[Completion]:
        """Waits for all answers, in order of their index; cancels when it is cancelled itself."""
        async with self:
            parts: dict[int, list[Delta]] = {}
            async for delta in self:
                parts.setdefault(delta.index, []).append(delta)
            return [completion_of(parts[index]) for index in sorted(parts)]

    def deliver(self, item: Delta | BaseException | None) -> None:
        """Hands something over from the worker thread; a loop that is closed wants nothing any more."""
        try:
            self._loop.call_soon_threadsafe(self._arrived.put_nowait, item)
        except RuntimeError:
            self._runner.cancel(self)


@dataclass(slots=True)
class _Underway:
    ticket: Ticket
    unfinished: int
    has_token: bool = False


@dataclass(slots=True)
class _Counters:
    """Written by the worker, read by anyone; guarded by the runner's lock."""

    finished: int = 0
    cancelled: int = 0
    refused: int = 0
    failed: int = 0
    made: deque[tuple[float, int]] = field(default_factory=deque)
    first_token: deque[float] = field(default_factory=lambda: deque(maxlen=TTFT_WINDOW))


class EngineRunner:
    """Owns an engine in one worker thread.

    Args:
        engine: used by the worker thread alone from now on.
        max_queue: requests that may wait, those under way not counted.
        idle_seconds: how long the idle worker sleeps before it looks again.
    """

    def __init__(self, engine: Served, *, max_queue: int = 64, idle_seconds: float = 0.5) -> None:
        self._engine = engine
        self._max_queue = max_queue
        self._idle = idle_seconds
        self._inbox: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._counters = _Counters()
        self._pending = 0  # tickets accepted that the engine has not begun
        self._stats = engine.stats()
        self._underway: dict[int, _Underway] = {}
        self._ids: dict[Ticket, int] = {}
        self._closing = threading.Event()
        self._abort = threading.Event()
        self._thread = threading.Thread(target=self._work, name="tunesmith-engine", daemon=True)
        self._thread.start()

    # ---- for the event loop

    def submit(self, request: GenerationRequest) -> Ticket:
        """Queues a request; call it on a running event loop. A request the engine refuses raises from the ticket.

        Raises:
            BusyError: the queue is full, or the runner is closing.
        """
        ticket = Ticket(request, self)
        with self._lock:
            waiting = self._pending + self._stats.waiting
            if self._closing.is_set() or waiting >= self._max_queue:
                self._counters.refused += 1
                reason = "the server is shutting down" if self._closing.is_set() else f"{waiting} requests wait already"
                raise BusyError(f"{reason}; try again later")
            self._pending += 1
        self._inbox.put(lambda: self._begin(ticket))
        return ticket

    def cancel(self, ticket: Ticket) -> None:
        """Ends a request, from any thread."""
        self._inbox.put(lambda: self._end(ticket))

    def call(self, work: Callable[[Any], T]) -> Future[T]:
        """Runs `work(engine)` between two steps, on the worker thread: adapters come and go this way.

        Use `await asyncio.wrap_future(runner.call(lambda engine: engine.remove_adapter("a")))`.
        """
        future: Future[T] = Future()

        def run() -> None:
            if not future.set_running_or_notify_cancel():
                return
            try:
                future.set_result(work(self._engine))
            except BaseException as error:  # whatever it is, it belongs to the caller
                future.set_exception(error)

        self._inbox.put(run)
        return future

    def stats(self) -> RunnerStats:
        """How it does now."""
        with self._lock:
            counters, stats = self._counters, self._stats
            now = time.monotonic()
            while counters.made and counters.made[0][0] < now - RATE_WINDOW:
                counters.made.popleft()
            return RunnerStats(
                engine=stats,
                queued=self._pending + stats.waiting,
                running=stats.running,
                tokens_per_second=sum(count for _, count in counters.made) / RATE_WINDOW,
                first_token_seconds=tuple(counters.first_token),
                finished=counters.finished,
                cancelled=counters.cancelled,
                refused=counters.refused,
                failed=counters.failed,
            )

    def close(self, *, drain: bool = True, timeout: float | None = None) -> bool:
        """Takes no more requests and ends the thread.

        Args:
            drain: finish what is under way or queued; else it ends with BusyError.
            timeout: seconds to wait for that; what is not done by then is ended.

        Returns:
            Whether the thread has ended.
        """
        self._closing.set()
        if not drain:
            self._abort.set()
        self._inbox.put(lambda: None)
        self._thread.join(timeout)
        if self._thread.is_alive():
            self._abort.set()
            self._thread.join(timeout)
        return not self._thread.is_alive()

    # ---- on the worker thread

    def _work(self) -> None:
        while not self._abort.is_set():
            is_idle = not self._underway
            if is_idle and self._closing.is_set() and self._inbox.empty():
                break
            self._take_in(wait=is_idle)
            self._publish()
            if self._underway:
                self._step()
        self._take_in(wait=False)
        self._fail_all(BusyError("the server is shutting down; try again later"))
        self._publish()

    def _take_in(self, *, wait: bool) -> None:
        try:
            self._inbox.get(timeout=self._idle if wait else 0.0)()
            while True:
                self._inbox.get_nowait()()
        except queue.Empty:
            return

    def _begin(self, ticket: Ticket) -> None:
        with self._lock:
            self._pending -= 1
        try:
            request_id = self._engine.submit(ticket.request)
        except TunesmithError as error:
            ticket.deliver(error)
            return
        except Exception as error:
            logger.exception("the engine could not take a request")
            ticket.deliver(_failure(error))
            return
        self._underway[request_id] = _Underway(ticket, ticket.request.sampling.n)
        self._ids[ticket] = request_id

    def _end(self, ticket: Ticket) -> None:
        request_id = self._ids.pop(ticket, None)
        if request_id is None:
            return
        self._underway.pop(request_id, None)
        self._engine.cancel(request_id)
        ticket.deliver(None)
        with self._lock:
            self._counters.cancelled += 1

    def _step(self) -> None:
        try:
            deltas = self._engine.step()
        except Exception as error:  # one failed step must not end the server
            logger.exception("the engine failed; %d requests are ended", len(self._underway))
            self._fail_all(_failure(error))
            return
        self._publish()
        now = time.monotonic()
        for delta in deltas:
            self._pass_on(delta, now)
        made = sum(len(delta.token_ids) for delta in deltas)
        if made:
            with self._lock:
                self._counters.made.append((now, made))

    def _pass_on(self, delta: Delta, now: float) -> None:
        work = self._underway.get(delta.request_id)
        if work is None:
            return
        if not work.has_token:
            work.has_token = True
            with self._lock:
                self._counters.first_token.append(now - work.ticket.submitted_at)
        work.ticket.deliver(delta)
        if delta.finish_reason is None:
            return
        work.unfinished -= 1
        if not work.unfinished:
            del self._underway[delta.request_id]
            self._ids.pop(work.ticket, None)
            with self._lock:
                self._counters.finished += 1

    def _fail_all(self, error: Exception) -> None:
        for request_id, work in list(self._underway.items()):
            self._engine.cancel(request_id)
            work.ticket.deliver(error)
        with self._lock:
            self._counters.failed += len(self._underway)
        self._underway.clear()
        self._ids.clear()

    def _publish(self) -> None:
        stats = self._engine.stats()
        with self._lock:
            self._stats = stats


def _failure(error: Exception) -> EngineFailedError:
    return EngineFailedError(f"the engine failed: {type(error).__name__}: {error}")
