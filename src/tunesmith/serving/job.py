"""One HTTP request's work in the engine: tickets of its prompts, merged, timed, and let go when nobody waits."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from http import HTTPStatus

from starlette.requests import Request

from tunesmith.core.errors import BusyError, TunesmithError
from tunesmith.inference.answer import AnswerReader, News
from tunesmith.inference.engine import GenerationRequest
from tunesmith.inference.runner import EngineRunner, Ticket
from tunesmith.serving.errors import ApiError, bad_request, internal_error, too_late
from tunesmith.serving.metrics import Metrics

PING_SECONDS = 15.0
"""A stream that has nothing to say says so this often, so that proxies keep it open."""
_RETRY_SECONDS = (1, 60)


class GoneError(Exception):
    """The client went away; nobody is there to be told."""


class Job:
    """Answers under way for one HTTP request.

    Args:
        runner: takes the requests.
        requests: one a prompt.
        readers: one an answer, those of a prompt side by side.
        metrics: counts.
        timeout: seconds for all of it.

    Raises:
        ApiError: 429 when the queue is full; what was taken already is let go.
    """

    def __init__(
        self,
        runner: EngineRunner,
        requests: Sequence[GenerationRequest],
        readers: Sequence[AnswerReader],
        metrics: Metrics,
        timeout: float,
    ) -> None:
        self.readers = list(readers)
        self.prompt_tokens = sum(len(request.prompt_ids) for request in requests)
        self._metrics = metrics
        self._timeout = timeout
        self._started = time.monotonic()
        self._tickets: list[Ticket] = []
        self._is_closed = self._has_token = False
        try:
            for request in requests:
                self._tickets.append(runner.submit(request))
        except BusyError as error:
            self._let_go()
            raise busy(str(error), runner) from error
        metrics.open_requests += 1

    @property
    def generated_tokens(self) -> int:
        """Tokens made so far, in all answers."""
        return sum(reader.n_tokens for reader in self.readers)

    def close(self, *, left: bool = False) -> None:
        """Ends what is under way and frees its places; the second time nothing happens.

        Args:
            left: when something is under way still, the client went away.
        """
        if self._is_closed:
            return
        self._is_closed = True
        self._metrics.disconnects += left
        self._let_go()
        self._metrics.open_requests -= 1
        self._metrics.prompt_tokens += self.prompt_tokens
        self._metrics.generated_tokens += self.generated_tokens
        self._metrics.whole.observe(time.monotonic() - self._started)

    def _let_go(self) -> None:
        for ticket in self._tickets:
            ticket.cancel()

    async def news(self) -> AsyncIterator[tuple[int, News] | None]:
        """Yields (index of the answer, what it brought); None when there was nothing for PING_SECONDS.

        Raises:
            ApiError: the engine refused a prompt, failed, or the time is over.
        """
        arrived: asyncio.Queue[tuple[int, News] | BaseException] = asyncio.Queue()
        pumps = [asyncio.create_task(self._pump(place, arrived)) for place in range(len(self._tickets))]
        unfinished = len(self.readers)
        try:
            while unfinished:
                patience = min(PING_SECONDS, self._remaining())
                try:
                    item = await asyncio.wait_for(arrived.get(), patience)
                except TimeoutError:
                    yield None
                    continue
                if isinstance(item, BaseException):
                    raise as_api_error(item) from item
                unfinished -= item[1].finish_reason is not None
                yield item
        except (asyncio.CancelledError, GeneratorExit):
            self.close(left=True)
            raise
        finally:
            for pump in pumps:
                pump.cancel()
            self.close()

    def _remaining(self) -> float:
        seconds = self._timeout - (time.monotonic() - self._started)
        if seconds <= 0:
            raise too_late(self._timeout)
        return seconds

    async def _pump(self, place: int, arrived: asyncio.Queue[tuple[int, News] | BaseException]) -> None:
        """Reads one ticket into the queue that all share."""
        ticket = self._tickets[place]
        width = len(self.readers) // len(self._tickets)
        readers = self.readers[place * width : (place + 1) * width]
        try:
            async for delta in ticket:
                self._note_first_token()
                news = readers[delta.index].push(delta)
                if not news.is_empty:
                    arrived.put_nowait((place * width + delta.index, news))
                if all(reader.is_over for reader in readers):
                    ticket.cancel()  # a stop text may end an answer before the engine has seen it
                    return
            arrived.put_nowait(BusyError("the request was ended before its answer; try again"))
        except Exception as error:
            arrived.put_nowait(error)

    def _note_first_token(self) -> None:
        if not self._has_token:
            self._has_token = True
            self._metrics.first_token.observe(time.monotonic() - self._started)


def as_api_error(error: BaseException) -> ApiError:
    """What a client is told about an error under way."""
    if isinstance(error, ApiError):
        return error
    if isinstance(error, BusyError):
        return ApiError(HTTPStatus.SERVICE_UNAVAILABLE, str(error), code="overloaded", headers={"Retry-After": "1"})
    return bad_request(str(error)) if isinstance(error, TunesmithError) else internal_error()


def busy(why: str, runner: EngineRunner) -> ApiError:
    """429 with an estimate of when a place is free."""
    stats = runner.stats()
    # Half a second for each answer that waits is a guess; a wrong one costs the client one more try.
    seconds = min(max(_RETRY_SECONDS[0], stats.queued // 2), _RETRY_SECONDS[1])
    return ApiError(HTTPStatus.TOO_MANY_REQUESTS, why, code="queue_full", headers={"Retry-After": str(seconds)})


async def collect(job: Job, request: Request) -> list[list[News]]:
    """All news of each answer, once they are whole; ends the work when the client goes away.

    Raises:
        ApiError: as `Job.news`.
        GoneError: the client went away.
    """
    parts: list[list[News]] = [[] for _ in job.readers]

    async def read() -> None:
        async for item in job.news():
            if item is not None:
                parts[item[0]].append(item[1])

    reading = asyncio.create_task(read())
    leaving = asyncio.create_task(_left(request))
    try:
        await asyncio.wait({reading, leaving}, return_when=asyncio.FIRST_COMPLETED)
        if not reading.done():
            raise GoneError
        reading.result()
        return parts
    finally:
        leaving.cancel()
        reading.cancel()
        job.close()


async def _left(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
