"""A conversation as the chat window shows it: thoughts and calls folded, tool results marked. No Gradio here."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from typing import Any

from tunesmith.core.types import Message, ToolCall
from tunesmith.studio.seat import Answer
from tunesmith.studio.words import say

Bubble = dict[str, Any]
_FENCE = re.compile(r"(```.*?(?:```|\Z)|`[^`\n]*`)", re.DOTALL)


def bubbles(messages: Sequence[Message], answer: Answer | None = None, language: str = "en") -> list[Bubble]:
    """What the window shows.

    Args:
        messages: the conversation.
        answer: under way, behind it.
        language: of the titles over what is folded.
    """
    shown = [bubble for message in messages for bubble in _of_message(message, language)]
    if answer is not None:
        shown += _of_answer(answer, language)
    return shown


def _of_message(message: Message, language: str) -> Iterator[Bubble]:
    if message.role == "tool":
        yield _folded("user", say("chat.tool", language), _fenced(message.content))
    elif message.role == "user":
        yield {"role": "user", "content": visible(message.content)}
    else:
        if message.reasoning_content:
            yield _folded("assistant", say("chat.thought", language), visible(message.reasoning_content))
        yield from _parts(message.content, message.tool_calls, language)


def _of_answer(answer: Answer, language: str) -> Iterator[Bubble]:
    if answer.reasoning:
        is_thinking = not answer.content and answer.finish_reason is None
        title = say("chat.is_thinking" if is_thinking else "chat.thought", language)
        bubble = _folded("assistant", title, visible(answer.reasoning), "pending" if is_thinking else "done")
        if answer.thought_seconds:
            bubble["metadata"]["duration"] = round(answer.thought_seconds, 1)
        yield bubble
    yield from _parts(answer.content, answer.calls, language)
    if not (answer.reasoning or answer.content or answer.calls):
        yield {"role": "assistant", "content": "…" if answer.finish_reason is None else say("chat.no_text", language)}


def _parts(content: str, calls: Sequence[ToolCall], language: str) -> Iterator[Bubble]:
    if content:
        yield {"role": "assistant", "content": visible(content)}
    for call in calls:
        arguments = json.dumps(call.arguments, ensure_ascii=False, indent=2)
        yield _folded("assistant", say("chat.call", language, name=call.name), _fenced(arguments))


def _folded(role: str, title: str, content: str, status: str = "done") -> Bubble:
    return {"role": role, "content": content, "metadata": {"title": title, "status": status}}


def _fenced(text: str) -> str:
    fence = "`" * max(3, 1 + max((len(run) for run in re.findall(r"`+", text)), default=0))
    return f"{fence}json\n{text}\n{fence}"


def visible(text: str) -> str:
    """Markdown in which tags are text: a model's `<b>` is shown as it was written; code stays as it is."""
    parts = _FENCE.split(text)
    return "".join(part if place % 2 else part.replace("<", "&lt;") for place, part in enumerate(parts))
