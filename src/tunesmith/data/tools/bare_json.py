"""Formats whose calls are JSON without tags: Llama 3 and Mistral."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from datetime import date

from tunesmith.core.types import ToolCall
from tunesmith.data.tools.base import Parsed, Schemas, ToolFormat, make_call, parsed, to_json, wrapped

LLAMA3_HEAD = (
    "Cutting Knowledge Date: December 2023\nToday Date: {today}\n\n"
    "You have access to the following functions. To call a function, please respond with JSON for a function call. "
    'Respond in the format {{"name": function name, "parameters": dictionary of argument name and its value}}. '
    "Do not use variables.\n\n"
)
_LLAMA3_OPENINGS = ('{"', "[{", "{\n", "[\n")
_MISTRAL_OPENINGS = ("[{", '{"', "[ {")


def _llama3_tools(tools: Schemas, today: date) -> str:
    head = LLAMA3_HEAD.format(today=today.strftime("%d %b %Y"))
    return head + "".join(to_json(wrapped(tool), 4) + "\n\n" for tool in tools)


def _llama3_calls(calls: Sequence[ToolCall], compat: bool) -> str:
    written = [{"name": call.name, "parameters": call.arguments} for call in calls]
    return to_json(written[0] if len(written) == 1 else written)


def _mistral_tools(tools: Schemas, today: date) -> str:
    return f"[AVAILABLE_TOOLS] {to_json([wrapped(tool) for tool in tools])}[/AVAILABLE_TOOLS]"


def _mistral_calls(calls: Sequence[ToolCall], compat: bool) -> str:
    """The id stands behind the arguments, in templates that link results to calls."""
    return to_json(
        [{"name": call.name, "arguments": call.arguments} | ({"id": call.id} if call.id else {}) for call in calls]
    )


def _read(text: str, key: str) -> list[ToolCall | None] | None:
    try:
        value = json.loads(text)
    except ValueError:
        return None
    items = value if isinstance(value, list) else [value]
    if not all(isinstance(item, dict) and "name" in item and key in item for item in items):
        return None
    calls = [(make_call(item["name"], item[key]), item.get("id")) for item in items]
    return [replace(call, id=one) if call and isinstance(one, str) else call for call, one in calls]


def _parse(text: str, key: str, openings: Sequence[str]) -> Parsed | None:
    """Reads JSON that ends the text: all of it, or what follows a line break."""
    for start in _starts(text, openings):
        calls = _read(text[start:], key)
        if calls:
            return parsed(text[:start], calls)
    return None


def _starts(text: str, openings: Sequence[str]) -> list[int]:
    stripped = len(text) - len(text.lstrip())
    lines = [index + 1 for index, char in enumerate(text) if char == "\n"]
    return [start for start in dict.fromkeys([stripped, *lines]) if text.startswith(tuple(openings), start)]


def _llama3_parse(text: str, tools: Schemas | None) -> Parsed | None:
    return _parse(text.removeprefix("<|python_tag|>"), "parameters", _LLAMA3_OPENINGS)


def _mistral_parse(text: str, tools: Schemas | None) -> Parsed | None:
    before, mark, after = text.partition("[TOOL_CALLS]")
    if mark:
        calls = _read(after, "arguments")
        return parsed(before, calls) if calls else None
    return _parse(text, "arguments", _MISTRAL_OPENINGS)


LLAMA3 = ToolFormat(_llama3_tools, _llama3_calls, _llama3_parse, openings=("<|python_tag|>", *_LLAMA3_OPENINGS))
MISTRAL = ToolFormat(
    _mistral_tools,
    _mistral_calls,
    _mistral_parse,
    marks=("[AVAILABLE_TOOLS]", "[/AVAILABLE_TOOLS]"),
    openings=("[TOOL_CALLS]", *_MISTRAL_OPENINGS),
)
