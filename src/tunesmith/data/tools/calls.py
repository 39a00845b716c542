"""Formats that write calls as `name(...)` or `name{...}`: LFM2 and Gemma 4."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Mapping, Sequence
from datetime import date
from typing import Any

from tunesmith.core.types import ToolCall
from tunesmith.data.tools.base import Parsed, Schemas, ToolFormat, bare, parsed, to_json

_QUOTE = '<|"|>'
_LFM2_CALLS = re.compile(r"<\|tool_call_start\|>\[(.*?)\]<\|tool_call_end\|>", re.DOTALL)
_GEMMA4_CALL = re.compile(r"<\|tool_call>call:([^{\s]+)\{(.*?)\}<tool_call\|>", re.DOTALL)
_NAME = re.compile(r"[^\s(),=]+")
_LITERAL = re.compile(r"[^,\[\]{}()\s]+")


def _lfm2_tools(tools: Schemas, today: date) -> str:
    return f"List of tools: <|tool_list_start|>{to_json([bare(tool) for tool in tools])}<|tool_list_end|>"


def _lfm2_calls(calls: Sequence[ToolCall], compat: bool) -> str:
    written = ", ".join(f"{call.name}({_lfm2_arguments(call.arguments, compat)})" for call in calls)
    return f"<|tool_call_start|>[{written}]<|tool_call_end|>"


def _lfm2_arguments(arguments: Mapping[str, Any], compat: bool) -> str:
    return ", ".join(f"{key}={_lfm2_value(value, compat)}" for key, value in arguments.items())


def _lfm2_value(value: Any, compat: bool) -> str:
    return f'"{value}"' if compat and isinstance(value, str) else to_json(value)


def _lfm2_parse(text: str, tools: Schemas | None) -> Parsed | None:
    match = _LFM2_CALLS.search(text)
    if match is None:
        return None
    try:
        return parsed(text[: match.start()], _read_calls(match.group(1)))
    except (ValueError, SyntaxError):
        return None


def _read_calls(text: str) -> list[ToolCall | None]:
    """Calls in Python's form whose values are JSON or Python literals.

    Raises:
        ValueError: the text is not such a list.
    """
    calls: list[ToolCall | None] = []
    position = 0
    while position < len(text):
        name, position = _expect_name(text, position, "(")
        arguments: dict[str, Any] = {}
        while text[position : position + 1] != ")":
            key, position = _expect_name(text, position, "=")
            arguments[key], position = _read_literal(text, position)
            position = _skip(text, position)
        calls.append(ToolCall(name, arguments))
        position = _skip(text, position + 1)
    return calls


def _expect_name(text: str, position: int, following: str) -> tuple[str, int]:
    match = _NAME.match(text, position)
    if match is None or text[match.end() : match.end() + 1] != following:
        raise ValueError(position)
    return match.group(), match.end() + 1


def _skip(text: str, position: int) -> int:
    while position < len(text) and text[position] in ", \n":
        position += 1
    return position


def _read_literal(text: str, position: int) -> tuple[Any, int]:
    """The JSON value at `position`, else the shortest Python literal that ends before a comma or a bracket."""
    try:
        return json.JSONDecoder(strict=False).raw_decode(text, position)
    except ValueError:
        ends = [index for index in range(position + 1, len(text) + 1) if text[index : index + 1] in (",", ")", "")]
    for end in ends:
        try:
            return ast.literal_eval(text[position:end]), end
        except (ValueError, SyntaxError):
            continue
    raise ValueError(position)


def _gemma4_tools(tools: Schemas, today: date) -> str:
    return "\n".join(_declaration(bare(tool)) for tool in tools)


def _quoted(text: Any) -> str:
    return f"{_QUOTE}{text}{_QUOTE}"


def _declaration(tool: Mapping[str, Any]) -> str:
    parts = [f"description:{_quoted(tool.get('description', ''))}"]
    parameters = tool.get("parameters")
    if parameters:
        parts.append(f"parameters:{{{','.join(_object_fields(parameters))}}}")
    return f"declaration:{tool['name']}{{{','.join(parts)}}}"


def _object_fields(schema: Mapping[str, Any]) -> list[str]:
    parts = []
    if schema.get("properties"):
        items = schema["properties"].items()
        parts.append(f"properties:{{{','.join(f'{name}:{{{_property(item)}}}' for name, item in items)}}}")
    if schema.get("required"):
        parts.append(f"required:[{','.join(map(_quoted, schema['required']))}]")
    parts.append(f"type:{_quoted(str(schema.get('type', 'object')).upper())}")
    return parts


def _property(schema: Mapping[str, Any]) -> str:
    parts = [f"description:{_quoted(schema['description'])}"] if schema.get("description") else []
    if schema.get("type"):
        parts.append(f"type:{_quoted(str(schema['type']).upper())}")
    return ",".join(parts)


def _gemma4_value(value: Any) -> str:
    if isinstance(value, str):
        return _quoted(value)
    if isinstance(value, Mapping):
        return f"{{{_gemma4_fields(value)}}}"
    if isinstance(value, list | tuple):
        return f"[{','.join(map(_gemma4_value, value))}]"
    return to_json(value)


def _gemma4_fields(arguments: Mapping[str, Any]) -> str:
    return ",".join(f"{key}:{_gemma4_value(arguments[key])}" for key in sorted(arguments))


def _gemma4_calls(calls: Sequence[ToolCall], compat: bool) -> str:
    return "".join(f"<|tool_call>call:{call.name}{{{_gemma4_fields(call.arguments)}}}<tool_call|>" for call in calls)


def _gemma4_parse(text: str, tools: Schemas | None) -> Parsed | None:
    found: list[ToolCall | None] = []
    for name, body in _GEMMA4_CALL.findall(text):
        try:
            value, end = _gemma4_read("{" + body + "}", 0)
        except ValueError:
            value, end = None, 0
        found.append(ToolCall(name, value) if isinstance(value, dict) and end == len(body) + 2 else None)
    return parsed(text[: max(text.find("<|tool_call>"), 0)], found)


def _gemma4_read(text: str, position: int) -> tuple[Any, int]:
    """The value at `position` and where it ends.

    Raises:
        ValueError: no value is there.
    """
    if text.startswith(_QUOTE, position):
        start = position + len(_QUOTE)
        end = text.index(_QUOTE, start)
        return text[start:end], end + len(_QUOTE)
    if text[position : position + 1] == "[":
        return _gemma4_list(text, position + 1)
    if text[position : position + 1] == "{":
        return _gemma4_object(text, position + 1)
    match = _LITERAL.match(text, position)
    if match is None:
        raise ValueError(position)
    return json.loads(match.group()), match.end()


def _gemma4_list(text: str, position: int) -> tuple[list[Any], int]:
    values = []
    while text[position : position + 1] != "]":
        value, position = _gemma4_read(text, position)
        values.append(value)
        position += text[position : position + 1] == ","
    return values, position + 1


def _gemma4_object(text: str, position: int) -> tuple[dict[str, Any], int]:
    values: dict[str, Any] = {}
    while text[position : position + 1] != "}":
        colon = text.index(":", position)
        key = text[position:colon].removeprefix(_QUOTE).removesuffix(_QUOTE)
        values[key], position = _gemma4_read(text, colon + 1)
        position += text[position : position + 1] == ","
    return values, position + 1


LFM2 = ToolFormat(
    _lfm2_tools,
    _lfm2_calls,
    _lfm2_parse,
    marks=("<|tool_list_start|>", "<|tool_list_end|>", "<|tool_call_start|>", "<|tool_call_end|>"),
    openings=("<|tool_call_start|>",),
)
GEMMA4 = ToolFormat(
    _gemma4_tools,
    _gemma4_calls,
    _gemma4_parse,
    marks=("<|tool_call>", "<tool_call|>", _QUOTE),
    openings=("<|tool_call>",),
)
