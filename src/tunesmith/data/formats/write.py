"""Examples -> rows of a layout: the way back of `convert.py`. What a layout has no place for is a RowError."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from tunesmith.core.types import Conversation, Example, Feedback, Message, Preference, Source, ToolCall
from tunesmith.data.catalog import OPENAI_TAGS, Columns, DatasetSpec, Tags
from tunesmith.data.formats.convert import convert
from tunesmith.data.formats.fields import RowError

LAYOUTS = ("alpaca", "sharegpt", "openai")
LABEL = "label"
_Row = dict[str, Any]

COLUMNS = {
    "alpaca": {
        "prompt": "instruction",
        "query": "input",
        "response": "output",
        "history": "history",
        "system": "system",
    },
    "sharegpt": {"messages": "conversations"},
    "openai": {"messages": "messages"},
}
"""The columns of a layout, by what they hold; `tools`, `chosen`, `rejected` and the label come on top."""


def write_row(example: Example, layout: str) -> _Row:
    """One example as a row.

    Raises:
        RowError: the layout has no place for something that the example holds.
    """
    if isinstance(example, Preference):
        row = _prompt(example.prompt, layout)
        row["chosen"], row["rejected"] = (_answer(one, layout) for one in (example.chosen, example.rejected))
        return row
    if isinstance(example, Feedback):
        return {**_conversation(example.conversation, layout), LABEL: example.is_desirable}
    if isinstance(example, Conversation):
        return _conversation(example, layout)
    raise RowError("plain text has no messages", "text", f"{layout} is for conversations; plain text needs no layout")


def checked_row(example: Example, layout: str, spec: DatasetSpec, stage: str) -> _Row:
    """`write_row`, read back and held against the example.

    Args:
        example: what the row says.
        layout: one of `LAYOUTS`.
        spec: of the output, every column named.
        stage: that reads this kind of example.

    Raises:
        RowError: the layout cannot say all of it.
    """
    row = write_row(example, layout)
    source = example.source or Source("", 0)
    back = convert(json.loads(json.dumps(row)), spec, stage, source)
    if back != example:
        raise RowError(f"{layout} would read it otherwise", "", "choose another layout")
    return row


def layout_tags(layout: str) -> Tags:
    """Keys and roles of the messages of a layout."""
    return OPENAI_TAGS if layout == "openai" else Tags()


def layout_columns(layout: str, used: set[str]) -> Columns:
    """The columns block for rows that use these keys."""
    extra = {"tools": "tools", "chosen": "chosen", "rejected": "rejected", "kto_tag": LABEL}
    named = {**COLUMNS[layout], **extra}
    return Columns(**{what: column for what, column in named.items() if column in used})


def _conversation(conversation: Conversation, layout: str) -> _Row:
    return _alpaca(conversation, answered=True) if layout == "alpaca" else _chat(conversation, layout)


def _prompt(conversation: Conversation, layout: str) -> _Row:
    return _alpaca(conversation, answered=False) if layout == "alpaca" else _chat(conversation, layout)


def _tools(conversation: Conversation, layout: str) -> _Row:
    if conversation.tools is None:
        return {}
    if layout == "openai":
        return {"tools": [{"type": "function", "function": tool} for tool in conversation.tools]}
    return {"tools": json.dumps(list(conversation.tools), ensure_ascii=False)}


def _alpaca(conversation: Conversation, *, answered: bool) -> _Row:
    """`instruction` (with `input` empty), `output`, and where there are any `system`, `history`, `tools`."""
    messages = list(conversation.messages)
    texts = [_text_only(message, index) for index, message in enumerate(messages)]
    row: _Row = {}
    if messages and messages[0].role == "system":
        row["system"] = texts.pop(0)
    answer = texts.pop() if answered else None
    row["instruction"], row["input"] = texts.pop(), ""
    if answer is not None:
        row["output"] = answer
    if texts:
        row["history"] = [[texts[place], texts[place + 1]] for place in range(0, len(texts) - 1, 2)]
    return {**row, **_tools(conversation, "alpaca")}


def _text_only(message: Message, index: int) -> str:
    """The text of a message that is nothing but text."""
    if message.tool_calls or message.role == "tool":
        what = "a tool call" if message.tool_calls else "a tool result"
    elif message.reasoning_content is not None:
        what = "a thought (reasoning_content)"
    elif message.trained is not None:
        what = "a mark of what is trained (weight, train)"
    else:
        return message.content
    raise RowError(f"alpaca has no place for {what}", f"message {index + 1}", "write to=openai")


def _answer(message: Message, layout: str) -> Any:
    return _text_only(message, 0) if layout == "alpaca" else _writer(layout)(message)


def _chat(conversation: Conversation, layout: str) -> _Row:
    write = _writer(layout)
    messages = [write(message) for message in conversation.messages]
    if layout == "openai":
        _name_results(messages)
    return {COLUMNS[layout]["messages"]: messages, **_tools(conversation, layout)}


def _writer(layout: str) -> Callable[[Message], _Row]:
    return _openai_message if layout == "openai" else _sharegpt_message


def _marks(message: Message) -> _Row:
    marks: _Row = {}
    if message.reasoning_content is not None:
        marks["reasoning_content"] = message.reasoning_content
    if message.trained is not None:
        marks["train"] = message.trained
    return marks


def _sharegpt_message(message: Message) -> _Row:
    names = {"user": "human", "assistant": "gpt", "tool": "observation", "system": "system"}
    if not message.tool_calls:
        return {"from": names[message.role], "value": message.content, **_marks(message)}
    calls = [_call(call) for call in message.tool_calls]
    written = json.dumps(calls[0] if len(calls) == 1 else calls, ensure_ascii=False)
    value = f"{message.content}\n{written}" if message.content else written
    return {"from": "function_call", "value": value, **_marks(message)}


def _call(call: ToolCall) -> _Row:
    return {"name": call.name, "arguments": call.arguments, **({"id": call.id} if call.id is not None else {})}


def _openai_message(message: Message) -> _Row:
    row: _Row = {"role": message.role, "content": message.content}
    if message.tool_calls:
        row["tool_calls"] = [
            {
                **({"id": call.id} if call.id is not None else {}),
                "type": "function",
                "function": {"name": call.name, "arguments": json.dumps(call.arguments, ensure_ascii=False)},
            }
            for call in message.tool_calls
        ]
    return {**row, **_marks(message)}


def _name_results(messages: list[_Row]) -> None:
    """Gives tool results the id of the call that they answer: results follow their calls in order."""
    waiting: list[str | None] = []
    for message in messages:
        if message["role"] == "assistant":
            waiting = [call.get("id") for call in message.get("tool_calls", ())]
        elif message["role"] == "tool" and waiting:
            name = waiting.pop(0)
            if name is not None:
                message["tool_call_id"] = name
