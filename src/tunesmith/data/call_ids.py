"""Ids that link the results of tools to their calls, for templates that write them."""

from __future__ import annotations

from collections.abc import Sequence

from tunesmith.core.types import Message

_SHORT = 9
"""Letters and digits in an id, where a family wants them so."""


def call_ids(messages: Sequence[Message], short: bool) -> list[tuple[str, ...]]:
    """The ids of each message: of its calls, or the one of the call that it answers; a result without a call has none.

    Args:
        messages: the conversation.
        short: exactly nine letters and digits; any other id is replaced.
    """
    if not any(message.tool_calls for message in messages):
        return [()] * len(messages)
    pending: list[str] = []
    found: list[tuple[str, ...]] = []
    for index, message in enumerate(messages):
        ids: tuple[str, ...] = ()
        if message.tool_calls:
            ids = tuple(_id(call.id, short, index, number) for number, call in enumerate(message.tool_calls))
            pending = list(ids)
        elif message.role == "tool" and pending:
            ids = (pending.pop(0),)
        found.append(ids)
    return found


def _id(given: str | None, short: bool, index: int, number: int) -> str:
    if given and (not short or (len(given) == _SHORT and given.isascii() and given.isalnum())):
        return given
    return f"call{index:03d}{number:02d}"
