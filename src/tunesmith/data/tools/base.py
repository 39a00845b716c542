"""What every tool format offers, and the pieces that several of them share."""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any

from tunesmith.core.types import ToolCall

Schemas = Sequence[Mapping[str, Any]]

SHIELD = "\ue0f0"
"""Private-use character put into values where they hold a mark of the format, so that only marks of ours are marks."""


@dataclass(frozen=True, slots=True)
class Parsed:
    """Calls read out of an answer.

    Attributes:
        content: what was written before the calls.
        calls: in order; never empty.
    """

    content: str
    calls: tuple[ToolCall, ...]


@dataclass(frozen=True, slots=True)
class ToolFormat:
    """One way to write tools and calls.

    Attributes:
        tools_text: (tools, today) -> text appended to the system text; tools as given, bare or wrapped.
        calls_text: (calls, compat) -> text; `compat` writes the bytes of LLaMA-Factory also where they are malformed.
        parse: (text, tools) -> what was read; None when the text holds no well-formed call.
        marks: texts that the template itself writes and that may be special tokens.
        describes_none: an empty list of tools is written out too.
        openings: texts that a call begins with, so that a stream holds back what follows; empty: any text may.
    """

    tools_text: Callable[[Schemas, date], str]
    calls_text: Callable[[Sequence[ToolCall], bool], str]
    parse: Callable[[str, Schemas | None], Parsed | None]
    marks: tuple[str, ...] = ()
    describes_none: bool = False
    openings: tuple[str, ...] = ()


def bare(tool: Mapping[str, Any]) -> Mapping[str, Any]:
    """The function schema itself, whether it came as `{type: function, function: {...}}` or bare."""
    inner = tool.get("function")
    return inner if tool.get("type") == "function" and isinstance(inner, Mapping) else tool


def wrapped(tool: Mapping[str, Any]) -> Mapping[str, Any]:
    """The schema as `{type: function, function: {...}}`."""
    return {"type": "function", "function": bare(tool)}


def to_json(value: Any, indent: int | None = None) -> str:
    """JSON with its characters as they are."""
    return json.dumps(value, ensure_ascii=False, indent=indent)


def as_text(value: Any) -> str:
    """A value between tags: a string as it is, everything else as JSON."""
    return value if isinstance(value, str) else to_json(value)


def make_call(name: Any, arguments: Any) -> ToolCall | None:
    """A call, if the arguments are an object, or JSON text of one."""
    if isinstance(arguments, str):
        try:
            arguments = json.loads(arguments)
        except ValueError:
            return None
    return ToolCall(name, arguments) if isinstance(arguments, dict) and isinstance(name, str) and name else None


def parsed(content: str, calls: Iterable[ToolCall | None]) -> Parsed | None:
    """The result, or None when there is no call or one of them is broken."""
    found = tuple(calls)
    whole = tuple(call for call in found if call is not None)
    return Parsed(content.removesuffix("\n"), whole) if whole and len(whole) == len(found) else None


def argument_types(name: str, tools: Schemas | None) -> Mapping[str, Any]:
    """Declared type of each argument of the tool `name`; empty when it is not among the tools."""
    for tool in tools or ():
        schema = bare(tool)
        if schema.get("name") == name:
            properties = (schema.get("parameters") or {}).get("properties") or {}
            return {key: value.get("type") for key, value in properties.items() if isinstance(value, Mapping)}
    return {}


def read_value(text: str, declared: Any) -> Any:
    """A value written without quotes: kept as text if declared a string, read as JSON where that is possible."""
    if declared == "string":
        return text
    try:
        return json.loads(text)
    except ValueError:
        return text


def shield(value: Any, marks: Sequence[str]) -> Any:
    """The value with every mark in its strings broken by SHIELD, so that `split_marks` passes over it."""
    if not marks:
        return value
    if isinstance(value, str):
        for mark in marks:
            value = value.replace(mark, mark[0] + SHIELD + mark[1:])
        return value
    if isinstance(value, Mapping):
        return {shield(key, marks): shield(item, marks) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [shield(item, marks) for item in value]
    return value


def split_marks(text: str, marks: Sequence[str]) -> list[tuple[str, bool]]:
    """Cuts text at the marks.

    Returns:
        (piece, is a mark) in order, without empty pieces and without SHIELD.
    """
    if not marks:
        return [(text, False)] if text else []
    if not any(mark in text for mark in marks):
        return [(text.replace(SHIELD, ""), False)] if text else []
    pieces = _any_of(tuple(marks)).split(text)
    return [(piece.replace(SHIELD, ""), index % 2 == 1) for index, piece in enumerate(pieces) if piece]


@functools.lru_cache(maxsize=64)
def _any_of(marks: tuple[str, ...]) -> re.Pattern[str]:
    pattern = "|".join(re.escape(mark) for mark in sorted(marks, key=len, reverse=True))
    return re.compile(f"({pattern})")
