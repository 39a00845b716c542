"""Server-sent events of answers under way, and a response that frees the engine's places however it ends."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable

from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from tunesmith.core.log import get_logger
from tunesmith.inference.answer import News
from tunesmith.serving import replies
from tunesmith.serving.errors import ApiError, internal_error
from tunesmith.serving.job import Job
from tunesmith.serving.replies import Envelope, JsonObject
from tunesmith.serving.requests import Sampled

_logger = get_logger(__name__)
Choices = Callable[[int, News], list[JsonObject]]


class EventStream(StreamingResponse):
    """A stream of events over a job.

    Args:
        events: what to send.
        job: is closed when the stream ends, also when the client went away before its first event.
    """

    def __init__(self, events: AsyncIterator[bytes], job: Job) -> None:
        super().__init__(
            events, media_type="text/event-stream", headers={"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}
        )
        self._job = job

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._job.close(left=True)


async def events(
    job: Job, envelope: Envelope, body: Sampled, opening: list[JsonObject], choices: Choices
) -> AsyncIterator[bytes]:
    """The events of one stream, in OpenAI's order: openings, pieces, usage if asked for, `[DONE]`.

    An error under way becomes an event with `error`, and no `[DONE]`.

    Args:
        job: answers.
        envelope: what the chunks share.
        body: what was asked.
        opening: choices of the first chunks.
        choices: news of an answer -> choices of chunks.
    """
    with_usage = bool(body.stream_options and body.stream_options.include_usage)
    more = {"usage": None} if with_usage else {}
    try:
        for choice in opening:
            yield replies.event(envelope.around([choice], **more))
        async for item in job.news():
            if item is None:
                yield replies.PING
                continue
            for choice in choices(*item):
                yield replies.event(envelope.around([choice], **more))
        if with_usage:
            total = replies.usage(job.prompt_tokens, job.generated_tokens)
            yield replies.event(envelope.around([], usage=total))
        yield replies.DONE
    except ApiError as error:
        yield replies.event(error.body)
    except Exception:
        _logger.exception("a stream failed")
        yield replies.event(internal_error().body)
