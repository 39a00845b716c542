"""Messages and tools of a request -> the Conversation that training's renderer writes. No template is known here."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from tunesmith.core.types import Conversation, Message, Role, ToolCall
from tunesmith.serving.errors import ApiError, bad_request, not_supported
from tunesmith.serving.fields import check_json
from tunesmith.serving.requests import CallIn, ChatRequest, MessageIn, Part, ToolChoiceIn, ToolIn

_MEDIA = ("image_url", "video_url", "audio_url", "input_audio", "file", "input_image", "input_file", "image", "video")
_ROLES: dict[str, Role] = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "assistant": "assistant",
    "tool": "tool",
}


def conversation_of(request: ChatRequest) -> Conversation:
    """The conversation to answer; tools are left out with `tool_choice: none`.

    Raises:
        ApiError: names the message and what is wrong with it.
    """
    messages = [_message(message, f"messages[{index}]") for index, message in enumerate(request.messages)]
    _check_order(messages)
    ordered = _with_results_in_order(request.messages, messages)
    return Conversation(tuple(ordered), tools_of(request))


def tools_of(request: ChatRequest) -> tuple[dict[str, Any], ...] | None:
    """Function schemas that the prompt shows.

    Raises:
        ApiError: two tools of one name, or `tool_choice` names one that is not there.
    """
    tools = request.tools or []
    names = [tool.function.name for tool in tools]
    for index, name in enumerate(names):
        if name in names[:index]:
            raise bad_request(f"tools[{index}].function.name: there are two tools named {name!r}", "tools")
    _check_choice(request, names)
    if not tools or request.tool_choice == "none":
        return None
    return tuple(_schema(tool) for tool in tools)


def _schema(tool: ToolIn) -> dict[str, Any]:
    """The function as training data writes it; `strict` speaks to the server, not to the model."""
    schema = {key: value for key, value in tool.function.plain().items() if key != "strict"}
    return {"name": schema.pop("name"), "description": "", **schema}


def _check_choice(request: ChatRequest, names: Sequence[str]) -> None:
    choice = request.tool_choice
    if choice in (None, "none", "auto"):
        return
    if not names:
        raise bad_request("tool_choice: there are no tools to choose from; send tools", "tool_choice")
    if isinstance(choice, ToolChoiceIn) and choice.function.name not in names:
        raise bad_request(
            f"tool_choice: there is no tool {choice.function.name!r} among {', '.join(names)}", "tool_choice"
        )


def _message(message: MessageIn, place: str) -> Message:
    if message.role == "function":
        raise not_supported(f"{place}.role", "OpenAI replaced the role function: send tool and tool_call_id")
    for field in ("function_call", "audio"):
        if getattr(message, field) is not None:
            raise not_supported(f"{place}.{field}", "not built; calls go into tool_calls")
    role = _ROLES[message.role]
    if role != "assistant":
        _only_for("assistant", message, place, ("tool_calls", "reasoning_content", "refusal"))
    if role != "tool":
        _only_for("tool", message, place, ("tool_call_id",))
    content = _content(message, place)
    if role != "assistant":
        return Message(role, content)
    calls = tuple(_call(call, f"{place}.tool_calls[{i}]") for i, call in enumerate(message.tool_calls or []))
    return Message("assistant", content or message.refusal or "", calls, message.reasoning_content)


def _only_for(role: str, message: MessageIn, place: str, fields: Sequence[str]) -> None:
    for field in fields:
        if getattr(message, field) is not None:
            raise bad_request(f"{place}.{field} belongs to messages of the role {role}", f"{place}.{field}")


def _content(message: MessageIn, place: str) -> str:
    if isinstance(message.content, str):
        return message.content
    if message.content is None:
        if message.role == "assistant" and (message.tool_calls or message.refusal or message.reasoning_content):
            return ""
        raise bad_request(f"{place}.content is missing", f"{place}.content")
    if not message.content:
        raise bad_request(f"{place}.content is an empty list", f"{place}.content")
    return "".join(_text(part, f"{place}.content[{index}]") for index, part in enumerate(message.content))


def _text(part: Part, place: str) -> str:
    if part.type in _MEDIA:
        raise not_supported(f"{place}.type", f"{part.type} parts are not built yet; this model reads text")
    if part.type == "refusal" and isinstance(refusal := (part.model_extra or {}).get("refusal"), str):
        return refusal
    if part.type != "text":
        raise bad_request(f"{place}.type: unknown kind of part {part.type!r}; send text", f"{place}.type")
    if part.text is None:
        raise bad_request(f"{place}.text is missing", f"{place}.text")
    return part.text


def _call(call: CallIn, place: str) -> ToolCall:
    arguments = call.function.arguments
    if isinstance(arguments, str):
        arguments = _object(arguments, f"{place}.function.arguments")
    return ToolCall(call.function.name, arguments, call.id)


def _object(text: str, place: str) -> dict[str, Any]:
    try:
        value = json.loads(text) if text.strip() else {}
        check_json(value)
    except (ValueError, RecursionError) as error:
        raise bad_request(f"{place} is not valid JSON text", place) from error
    if not isinstance(value, dict):
        raise bad_request(f"{place} must spell a JSON object", place)
    return value


def _check_order(messages: Sequence[Message]) -> None:
    """What holds for every template; the rest is the template's to refuse."""
    if messages[-1].role == "assistant":
        raise _misplaced(len(messages) - 1, "the last message is the assistant's: there is nothing to answer")
    if messages[-1].role == "system":
        raise _misplaced(len(messages) - 1, "the conversation ends with a system message: add the user's")
    called = False
    for index, message in enumerate(messages):
        if message.role == "tool" and not called:
            raise _misplaced(index, "a tool's result must follow the assistant message that called it")
        called = bool(message.tool_calls) or (called and message.role == "tool")


def _misplaced(index: int, why: str) -> ApiError:
    return bad_request(f"messages[{index}]: {why}", f"messages[{index}].role")


def _with_results_in_order(given: Sequence[MessageIn], messages: Sequence[Message]) -> list[Message]:
    """Results in the order of the calls that they answer: templates write no ids, or take them in order."""
    ordered: list[Message] = []
    calls: list[str] = []
    results: dict[str, Message] = {}
    for index, (sent, message) in enumerate(zip(given, messages, strict=True)):
        if message.role != "tool":
            ordered += _sorted_results(results, calls, index)
            results = {}
            calls = [call.id or "" for call in message.tool_calls]
            ordered.append(message)
            continue
        place = f"messages[{index}].tool_call_id"
        name = sent.tool_call_id
        if name is None and all(calls):
            raise bad_request(f"{place} is missing", place)
        if name is None or not all(calls):
            ordered.append(message)  # calls without ids: the order is all there is
            continue
        if name not in calls:
            raise bad_request(f"{place}: no call before it has the id {name!r}", place)
        if name in results:
            raise bad_request(f"{place}: there are two results for the call {name!r}", place)
        results[name] = message
    return ordered + _sorted_results(results, calls, len(messages))


def _sorted_results(results: dict[str, Message], calls: Sequence[str], index: int) -> list[Message]:
    missing = [name for name in calls if name and name not in results]
    if results and missing:
        raise bad_request(f"messages[{index - 1}]: the call {missing[0]!r} has no result", "messages")
    return [results[name] for name in calls if name in results]
