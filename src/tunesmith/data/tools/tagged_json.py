"""Formats whose calls are JSON objects between tags: Qwen, Ling, MiniMax-M1."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from datetime import date
from typing import Any

from tunesmith.core.types import ToolCall
from tunesmith.data.tools.base import Parsed, Schemas, ToolFormat, bare, make_call, parsed, to_json, wrapped

QWEN_TOOLS = (
    "# Tools\n\nYou may call one or more functions to assist with the user query.\n\n"
    "You are provided with function signatures within <tools></tools> XML tags:\n<tools>\n{tools}\n</tools>\n\n"
    "For each function call, return a json object with function name and arguments within "
    "<tool_call></tool_call> XML tags:\n"
    '<tool_call>\n{{"name": <function-name>, "arguments": <args-json-object>}}\n</tool_call>'
)
MINIMAX1_TOOLS = (
    "You are provided with these tools:\n<tools>\n{tools}\n</tools>\n\n"
    "If you need to call tools, please respond with <tool_calls></tool_calls> XML tags, and provide tool-name and "
    "json-object of arguments, following the format below:\n<tool_calls>\n"
    '{{"name": <tool-name-1>, "arguments": <args-json-object-1>}}\n...\n</tool_calls>'
)
_QWEN_CALL = re.compile(r"<tool_call>(.*?)</tool_call>", re.DOTALL)
_MINIMAX1_CALLS = re.compile(r"<tool_calls>(.*?)</tool_calls>", re.DOTALL)


def _qwen_tools(tools: Schemas, today: date) -> str:
    return "\n\n" + QWEN_TOOLS.format(tools="\n".join(to_json(wrapped(tool)) for tool in tools))


def _ling_tools(tools: Schemas, today: date) -> str:
    return _qwen_tools(tools, today).lstrip("\n") + "\ndetailed thinking off"


def _object(call: ToolCall) -> str:
    return to_json({"name": call.name, "arguments": call.arguments})


def _qwen_calls(calls: Sequence[ToolCall], compat: bool) -> str:
    return "\n".join(f"<tool_call>\n{_object(call)}\n</tool_call>" for call in calls)


def _read(text: str) -> ToolCall | None:
    try:
        value = json.loads(text)
    except ValueError:
        return None
    return _call(value)


def _call(value: Any) -> ToolCall | None:
    return make_call(value.get("name"), value.get("arguments")) if isinstance(value, dict) else None


def _qwen_parse(text: str, tools: Schemas | None) -> Parsed | None:
    first = text.find("<tool_call>")
    return parsed(text[: max(first, 0)], [_read(body) for body in _QWEN_CALL.findall(text)])


def _minimax1_tools(tools: Schemas, today: date) -> str:
    return MINIMAX1_TOOLS.format(tools="\n".join(to_json(bare(tool)) for tool in tools))


def _minimax1_calls(calls: Sequence[ToolCall], compat: bool) -> str:
    return "<tool_calls>\n" + "".join(_object(call) + "\n" for call in calls) + "</tool_calls>"


def _minimax1_parse(text: str, tools: Schemas | None) -> Parsed | None:
    match = _MINIMAX1_CALLS.search(text)
    if match is None:
        return None
    return parsed(text[: match.start()], _read_all(match.group(1).strip()))


def _read_all(text: str) -> list[ToolCall | None]:
    """Calls one behind another; None in place of what is none."""
    calls: list[ToolCall | None] = []
    while text:
        try:
            value, end = json.JSONDecoder().raw_decode(text)
        except ValueError:
            return [*calls, None]
        calls.append(_call(value))
        text = text[end:].lstrip()
    return calls


_CALL_MARKS = ("<tool_call>", "</tool_call>")
QWEN = ToolFormat(_qwen_tools, _qwen_calls, _qwen_parse, marks=_CALL_MARKS, openings=_CALL_MARKS[:1])
LING = ToolFormat(_ling_tools, _qwen_calls, _qwen_parse, marks=_CALL_MARKS, openings=_CALL_MARKS[:1])
MINIMAX1 = ToolFormat(
    _minimax1_tools,
    _minimax1_calls,
    _minimax1_parse,
    marks=("<tool_calls>", "</tool_calls>"),
    openings=("<tool_calls>",),
)
