"""Many pieces of work, a few under way together; the first signal lets these finish, the second one does not."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Awaitable, Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from tunesmith.core.errors import Interrupted
from tunesmith.core.log import get_logger

T = TypeVar("T")
R = TypeVar("R")
_logger = get_logger(__name__)
_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Crew:
    """Works through things with so many workers; knows whether it was told to stop.

    Args:
        size: workers.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self._signum = 0

    def check(self) -> None:
        """Raises where no new call may begin.

        Raises:
            Interrupted: a signal came.
        """
        if self._signum:
            message = "stopped; every answer that came is kept, and the same command goes on from there"
            raise Interrupted(message, self._signum)

    async def work_through(
        self, things: Iterable[T], work: Callable[[T], Awaitable[R]], done: Callable[[R], None]
    ) -> None:
        """Does `work` for all things, in any order, and hands each result to `done`.

        Raises:
            BaseException: the first that `work` raised; the rest is cancelled then.
            Interrupted: after a signal, when what was under way has finished.
        """
        coming = iter(things)

        async def worker() -> None:
            for thing in coming:
                self.check()
                done(await work(thing))

        tasks = [asyncio.create_task(worker()) for _ in range(self._size)]
        try:
            finished, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
            if self._signum:
                await asyncio.wait(tasks)  # calls under way are paid for: their answers are waited for
            errors = [error for task in finished if (error := task.exception())]
            if errors:
                raise next((error for error in errors if not isinstance(error, Interrupted)), errors[0])
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    @contextmanager
    def stoppable(self) -> Iterator[None]:
        """Within it the first SIGINT or SIGTERM asks to stop; the second one ends the process as usual."""
        loop = asyncio.get_running_loop()

        def stop(signum: int) -> None:
            self._signum = signum
            _logger.warning("stopping when the calls under way have ended; once more stops at once")
            for one in _SIGNALS:
                loop.remove_signal_handler(one)

        try:
            for signum in _SIGNALS:
                loop.add_signal_handler(signum, stop, signum)
        except (RuntimeError, ValueError):  # not the main thread: whoever runs us has handlers of its own
            yield
            return
        try:
            yield
        finally:
            for signum in _SIGNALS:
                loop.remove_signal_handler(signum)
