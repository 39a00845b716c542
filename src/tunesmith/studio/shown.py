"""A conversation as the chat window shows it: thoughts and calls folded, tool results marked. No Gradio here."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from typing import Any

from tunesmith.core.types import Message, ToolCall
from tunesmith.studio.seat import Answer

Bubble = dict[str, Any]
_FENCE = re.compile(r"(```.*?(?:```|\Z)|`[^`\n]*`)", re.DOTALL)


def bubbles(messages: Sequence[Message], answer: Answer | None = None) -> list[Bubble]:
    """What the window shows.

    Args:
        messages: the conversation.
        answer: under way, behind it.
    """
    shown = [bubble for message in messages for bubble in _of_message(message)]
    if answer is not None:
        shown += _of_answer(answer)
    return shown


def _of_message(message: Message) -> Iterator[Bubble]:
    if message.role == "tool":
        yield _folded("user", "Tool result", _fenced(message.content))
    elif message.role == "user":
        yield {"role": "user", "content": visible(message.content)}
    else:
        yield from _parts(message.reasoning_content or "", message.content, message.tool_calls)


def _of_answer(answer: Answer) -> Iterator[Bubble]:
    is_thinking = bool(answer.reasoning) and not answer.content and answer.finish_reason is None
    yield from _parts(answer.reasoning, answer.content, answer.calls, is_thinking, answer.thought_seconds)
    if not (answer.reasoning or answer.content or answer.calls):
        yield {"role": "assistant", "content": "…" if answer.finish_reason is None else "*(no text)*"}


def _parts(
    reasoning: str, content: str, calls: Sequence[ToolCall], is_thinking: bool = False, seconds: float = 0.0
) -> Iterator[Bubble]:
    if reasoning:
        title = "Thinking" if is_thinking else "Thought"
        bubble = _folded("assistant", title, visible(reasoning), "pending" if is_thinking else "done")
        if seconds:
            bubble["metadata"]["duration"] = round(seconds, 1)
        yield bubble
    if content:
        yield {"role": "assistant", "content": visible(content)}
    for call in calls:
        arguments = json.dumps(call.arguments, ensure_ascii=False, indent=2)
        yield _folded("assistant", f"Call of {call.name}", _fenced(arguments))


def _folded(role: str, title: str, content: str, status: str = "done") -> Bubble:
    return {"role": role, "content": content, "metadata": {"title": title, "status": status}}


def _fenced(text: str) -> str:
    fence = "`" * max(3, 1 + max((len(run) for run in re.findall(r"`+", text)), default=0))
    return f"{fence}json\n{text}\n{fence}"


def visible(text: str) -> str:
    """Markdown in which tags are text: a model's `<b>` is shown as it was written; code stays as it is."""
    parts = _FENCE.split(text)
    return "".join(part if place % 2 else part.replace("<", "&lt;") for place, part in enumerate(parts))
