"""Between a chat's handlers and the seat: conversations made, answers of several models together. No Gradio here."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import TypeVar

from tunesmith.core.errors import DataError, Problem, TunesmithError
from tunesmith.core.log import get_logger
from tunesmith.core.types import Conversation, Message
from tunesmith.data.formats import RowError
from tunesmith.data.formats.tools import parse_tools
from tunesmith.studio.seat import Answer
from tunesmith.studio.shown import visible
from tunesmith.studio.words import say

_logger = get_logger(__name__)
_Item = TypeVar("_Item")


async def together(streams: Sequence[AsyncIterator[_Item]]) -> AsyncIterator[tuple[int, _Item]]:
    """Yields (place of the stream, item) as items come; an error of one ends all, and leaving ends all.

    Args:
        streams: at least one.
    """
    waiting: asyncio.Queue[tuple[int, _Item | None, BaseException | None]] = asyncio.Queue()

    async def feed(place: int, stream: AsyncIterator[_Item]) -> None:
        try:
            async for item in stream:
                waiting.put_nowait((place, item, None))
        except Exception as error:
            waiting.put_nowait((place, None, error))
        else:
            waiting.put_nowait((place, None, None))

    tasks = [asyncio.create_task(feed(place, stream)) for place, stream in enumerate(streams)]
    left = len(tasks)
    try:
        while left:
            place, item, error = await waiting.get()
            if error is not None:
                raise error
            if item is None:
                left -= 1
            else:
                yield place, item
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def conversation_of(system: str, messages: Sequence[Message], tools: str) -> Conversation:
    """What is asked of a model.

    Raises:
        DataError: the tools are not what they should be.
    """
    try:
        schemas = parse_tools(tools, "tools")
    except RowError as error:
        raise DataError([Problem(error.reason, error.column, error.fix)]) from error
    before = [Message("system", system)] if system and system.strip() else []
    return Conversation((*before, *messages), schemas)


def without_answer(messages: Sequence[Message]) -> list[Message]:
    """Up to the last message that the user or a tool wrote."""
    kept = list(messages)
    while kept and kept[-1].role == "assistant":
        kept.pop()
    return kept


def says_something(answer: Answer) -> bool:
    """Whether there is anything to keep of an answer."""
    return bool(answer.content or answer.reasoning or answer.calls)


def noted(answer: Answer, language: str) -> str:
    """Length, speed, and how it ended where that is not by itself."""
    speed = answer.n_tokens / answer.seconds if answer.seconds else 0.0
    end = say(f"chat.{answer.finish_reason}", language) if answer.finish_reason in ("length", "stopped") else ""
    return say("chat.speed", language, count=answer.n_tokens, speed=f"{speed:.1f}") + end


def reason_shown(error: Exception, language: str) -> str:
    """As Markdown that shows the words as they are."""
    if isinstance(error, TunesmithError):
        return visible(str(error)).replace("\n", "  \n")
    _logger.error("the page failed", exc_info=error)
    return say("shell.fault", language)
