"""Lists of message objects (sharegpt, OpenAI) -> Message tuples, with the rule of who speaks when."""

from __future__ import annotations

from typing import Any

from tunesmith.core.types import Message, Role
from tunesmith.data.catalog import Tags
from tunesmith.data.formats.fields import RowError, checked, kind_of
from tunesmith.data.formats.tools import make_call, parse_call_text, parse_openai_calls

_TRAINED_FIX = "write 0 or 1 (or train: true or false)"


def parse_message(value: Any, tags: Tags, column: str) -> Message:
    """One message object; `function_call` turns and `tool_calls` become ToolCalls, results become `tool` messages."""
    if not isinstance(value, dict):
        raise RowError(
            f"{kind_of(value)} where a message is expected",
            column,
            f'write {{"{tags.role_tag}": ..., "{tags.content_tag}": ...}}',
        )
    spoken = value.get(tags.role_tag)
    role = _role(spoken, value, tags, column)
    if role == "assistant":
        return _assistant_message(value, tags, column, is_call=spoken == tags.function_tag)
    content = _content(value, tags, column)
    return Message(role, content, trained=_trained(value, role, column))


def _role(spoken: Any, value: dict[str, Any], tags: Tags, column: str) -> Role:
    roles: dict[str, Role] = {
        "developer": "system",
        tags.function_tag: "assistant",
        tags.observation_tag: "tool",
        tags.system_tag: "system",
        tags.assistant_tag: "assistant",
        tags.user_tag: "user",
    }
    if spoken is None:
        there = ", ".join(map(str, value)) or "none"
        raise RowError(
            f"the message has no {tags.role_tag!r}",
            column,
            f"it has: {there}; name the right one under tags (role_tag)",
        )
    if not isinstance(spoken, str) or spoken not in roles:
        known = f"{tags.user_tag}, {tags.assistant_tag}, {tags.system_tag}, {tags.observation_tag}, {tags.function_tag}"
        raise RowError(
            f"unknown role {spoken!r}", f"{column}.{tags.role_tag}", f"known: {known}; other names go under tags"
        )
    return roles[spoken]


def _assistant_message(value: dict[str, Any], tags: Tags, column: str, is_call: bool) -> Message:
    content, calls = "", parse_openai_calls(value.get("tool_calls"), f"{column}.tool_calls")
    legacy = value.get("function_call")
    if isinstance(legacy, dict):
        calls += (make_call(legacy.get("name"), legacy.get("arguments"), f"{column}.function_call"),)
    if is_call and not calls:
        content, calls = parse_call_text(_content(value, tags, column), f"{column}.{tags.content_tag}")
    elif value.get(tags.content_tag) is not None or not calls:
        content = _content(value, tags, column)
    thought = value.get("reasoning_content")
    if thought is not None:
        thought = checked(thought, f"{column}.reasoning_content")
    return Message("assistant", content, calls, thought, _trained(value, "assistant", column))


def _content(value: dict[str, Any], tags: Tags, column: str) -> str:
    place = f"{column}.{tags.content_tag}"
    if tags.content_tag not in value:
        there = ", ".join(map(str, value)) or "none"
        raise RowError(
            f"the message has no {tags.content_tag!r}",
            column,
            f"it has: {there}; name the right one under tags (content_tag)",
        )
    content = value[tags.content_tag]
    if not isinstance(content, list):
        return checked(content, place)
    texts = []
    for index, part in enumerate(content):
        if not isinstance(part, dict) or part.get("type", "text") != "text":
            what = f"a part of type {part.get('type')!r}" if isinstance(part, dict) else kind_of(part)
            raise RowError(
                f"{what} where a text part is expected",
                f"{place}[{index}]",
                "images, video and audio are not built yet",
            )
        texts.append(checked(part.get("text"), f"{place}[{index}].text"))
    return "".join(texts)


def _trained(value: dict[str, Any], role: Role, column: str) -> bool | None:
    """`train` is obeyed on every role; `weight` is OpenAI's and weighs answers only."""
    train, weight = value.get("train"), value.get("weight")
    if train is not None:
        if not isinstance(train, bool):
            raise RowError(f"{kind_of(train)} where true or false is expected", f"{column}.train", _TRAINED_FIX)
        return train
    if weight is None:
        return None
    if isinstance(weight, bool) or weight not in (0, 1):
        raise RowError(f"weight {weight!r} is neither 0 nor 1", f"{column}.weight", _TRAINED_FIX)
    if weight == 0:
        return False
    return True if role == "assistant" else None


def parse_messages(values: list[Any], tags: Tags, column: str, system: str = "") -> tuple[Message, ...]:
    """All messages of a row, system first; a system message in the list wins over the system column."""
    messages = tuple(parse_message(value, tags, f"{column}[{index}]") for index, value in enumerate(values))
    if not messages:
        raise RowError("the list of messages is empty", column, "write the messages, or remove the row")
    if system and messages[0].role != "system":
        return (Message("system", system), *messages)
    return messages


def check_order(messages: tuple[Message, ...], column: str, ends_with: tuple[Role, ...]) -> None:
    """Holds the order of speakers: system first, then user (or tool results, one or more) and assistant in turn.

    Raises:
        RowError: names the place in the list (system counted, from 0) and what was expected.
    """
    spoken = [(index, message.role) for index, message in enumerate(messages)]
    if spoken and spoken[0][1] == "system":
        spoken = spoken[1:]
    before: Role | None = None
    for index, role in spoken:
        if role == "system":
            raise RowError("a system message after the first place", f"{column}[{index}]", "move it to the front")
        if role == "assistant" and before in (None, "assistant"):
            what = "begins with the assistant" if before is None else "has two assistant messages in a row"
            raise RowError(
                f"the conversation {what}", f"{column}[{index}]", "user and assistant take turns, the user begins"
            )
        if role == "user" and before in ("user", "tool"):
            raise RowError(
                f"a user message after a {before} message",
                f"{column}[{index}]",
                "merge them, or add the answer between",
            )
        if role == "tool" and before == "user":
            raise RowError(
                "a tool result after a user message", f"{column}[{index}]", "the assistant's call comes between"
            )
        before = role
    if before not in ends_with:
        wanted = " or ".join(ends_with)
        raise RowError(
            f"the last message is from {before or 'system'}, not from {wanted}",
            column,
            "add the answer, or remove the last message",
        )
