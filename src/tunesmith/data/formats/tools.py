"""Tool schemas and tool calls as data sets write them -> our plain objects. Writes no template's syntax."""

from __future__ import annotations

import json
import re
from typing import Any

from tunesmith.core.types import ToolCall
from tunesmith.data.formats.fields import RowError, kind_of, parse_json

_OPEN_MARK = re.compile(r"<tool_call>\s*$")
_CLOSE_MARK = re.compile(r"^\s*</tool_call>")


def parse_tools(value: Any, column: str) -> tuple[dict[str, Any], ...] | None:
    """Function schemas out of a JSON string or list; None: no tools were given.

    Both bare schemas and `{"type": "function", "function": {...}}` are taken.
    """
    if value is None or (isinstance(value, str) and not value.strip()):
        return None
    parsed = parse_json(value, column) if isinstance(value, str) else value
    if parsed is None:
        return None
    entries = [parsed] if isinstance(parsed, dict) else parsed
    if not isinstance(entries, list):
        raise RowError(
            f"{kind_of(parsed)} where a list of function schemas is expected",
            column,
            'write [{"name": ..., "parameters": {...}}]',
        )
    return tuple(_schema(entry, f"{column}[{index}]") for index, entry in enumerate(entries))


def _schema(entry: Any, column: str) -> dict[str, Any]:
    if isinstance(entry, str):
        entry = parse_json(entry, column)
    if isinstance(entry, dict) and isinstance(entry.get("function"), dict):
        entry = entry["function"]
    if not isinstance(entry, dict) or not isinstance(entry.get("name"), str) or not entry["name"]:
        raise RowError(
            "a function schema without a name", column, 'write {"name": ..., "description": ..., "parameters": {...}}'
        )
    return {key: value for key, value in entry.items() if value is not None}


def make_call(name: Any, arguments: Any, column: str, call_id: Any = None) -> ToolCall:
    """A call from its parts; arguments given as JSON text become the object that they spell."""
    if not isinstance(name, str) or not name:
        raise RowError("a tool call without a name", column, 'write {"name": ..., "arguments": {...}}')
    if isinstance(arguments, str):
        arguments = parse_json(arguments, f"{column}.arguments") if arguments.strip() else {}
    if arguments is None:
        arguments = {}
    if not isinstance(arguments, dict):
        raise RowError(
            f"{kind_of(arguments)} where an object is expected", f"{column}.arguments", "write the arguments by name"
        )
    return ToolCall(name, arguments, call_id if isinstance(call_id, str) else None)


def parse_openai_calls(value: Any, column: str) -> tuple[ToolCall, ...]:
    """The `tool_calls` of an OpenAI assistant message."""
    if value is None:
        return ()
    if not isinstance(value, list):
        raise RowError(
            f"{kind_of(value)} where a list of calls is expected",
            column,
            'write [{"function": {"name": ..., "arguments": {...}}}]',
        )
    calls = []
    for index, entry in enumerate(value):
        place = f"{column}[{index}]"
        if not isinstance(entry, dict):
            raise RowError(
                f"{kind_of(entry)} where a call is expected",
                place,
                'write {"function": {"name": ..., "arguments": {...}}}',
            )
        function = entry["function"] if isinstance(entry.get("function"), dict) else entry
        calls.append(make_call(function.get("name"), function.get("arguments"), place, entry.get("id")))
    return tuple(calls)


def parse_call_text(text: str, column: str) -> tuple[str, tuple[ToolCall, ...]]:
    """The text of a `function_call` turn -> (text before the calls, calls).

    The calls are a JSON object or a list of objects; each may stand in `<tool_call>` marks; a thought may come before.
    """
    prefix, rest = _split_prefix(text, column)
    calls: list[ToolCall] = []
    while rest.strip():
        entries, rest = _take_json(rest, column)
        for entry in entries if isinstance(entries, list) else [entries]:
            if not isinstance(entry, dict):
                raise RowError(
                    f"{kind_of(entry)} where a call is expected", column, 'write {"name": ..., "arguments": {...}}'
                )
            function = entry["function"] if isinstance(entry.get("function"), dict) else entry
            calls.append(make_call(function.get("name"), function.get("arguments"), column, entry.get("id")))
    if not calls:
        raise RowError("a function_call turn without a call", column, 'write {"name": ..., "arguments": {...}}')
    return prefix, tuple(calls)


def _split_prefix(text: str, column: str) -> tuple[str, str]:
    """Parts a thought or remark from the JSON that ends the text."""
    after_thought = text.rfind("</think>")
    start = 0 if after_thought < 0 else after_thought + len("</think>")
    while True:
        match = re.compile(r"[\[{]").search(text, start)
        if match is None:
            raise RowError("a function_call turn without JSON", column, 'write {"name": ..., "arguments": {...}}')
        try:
            json.JSONDecoder().raw_decode(text, match.start())
        except (json.JSONDecodeError, RecursionError):
            start = match.end()
            if text[: match.start()].strip() == "":
                parse_json(text.strip(), column)
            continue
        return _OPEN_MARK.sub("", text[: match.start()]).rstrip(), text[match.start() :]


def _take_json(text: str, column: str) -> tuple[Any, str]:
    """The first JSON value and what follows it, its marks taken off."""
    stripped = text.lstrip()
    if stripped.startswith("<tool_call>"):
        stripped = stripped.removeprefix("<tool_call>").lstrip()
    try:
        value, end = json.JSONDecoder().raw_decode(stripped)
    except json.JSONDecodeError as error:
        raise RowError(
            f"text after a call is not JSON: {error.msg}, near {stripped[:30]!r}",
            column,
            "write nothing after the call",
        ) from error
    return value, _CLOSE_MARK.sub("", stripped[end:]).lstrip().removeprefix(",")
