"""Tool calls as grammars: how a format writes them is read off what it writes itself, so no format is known here."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tunesmith.core.types import ToolCall
from tunesmith.data.tools import ToolFormat
from tunesmith.serving.errors import ApiError, not_supported
from tunesmith.serving.free_text import Head
from tunesmith.serving.grammar import Count, Node, alt, seq
from tunesmith.serving.json_grammar import OBJECT, SchemaGrammar

_PROBE = "\ue0f1"
Schemas = Sequence[Mapping[str, Any]]


@dataclass(frozen=True, slots=True)
class _Written:
    """What stands around the arguments of a tool's calls.

    Attributes:
        first: before them, where the call stands alone.
        last: behind them, there.
        listed: before them, in the first of several calls.
        between: between the arguments of a call and those of this tool's behind it.
        end: behind those of the last of several.
    """

    first: str
    last: str
    listed: str
    between: str
    end: str


def written(tool_format: ToolFormat, name: str) -> _Written | None:
    """What stands around the arguments of calls of a tool; None: they are not written as JSON."""
    one, two = (_pieces(tool_format, name, count) for count in (1, 2))
    return _Written(*one, *two) if len(one) == 2 and len(two) == 3 else None


def _pieces(tool_format: ToolFormat, name: str, count: int) -> list[str]:
    text = tool_format.calls_text([ToolCall(name, {_PROBE: 0})] * count, False)
    return text.split(json.dumps({_PROBE: 0}, ensure_ascii=False))


def placed(schemas: Schemas) -> list[tuple[str, Mapping[str, Any]]]:
    """Where each tool stands in the request."""
    return [(f"tools[{index}]", tool) for index, tool in enumerate(schemas)]


def arguments_of(tool: Mapping[str, Any], place: str, demanded_by: str, rules: dict[str, Node]) -> Node:
    """The arguments that fit a tool's schema.

    Args:
        tool: its schema.
        place: where it stands in the request.
        demanded_by: the field that makes the schema binding, for messages.
        rules: gets the rules that the arguments refer to.

    Raises:
        ApiError: the schema cannot be held to.
    """
    if not tool.get("parameters"):
        return OBJECT
    try:
        grammar = SchemaGrammar(tool["parameters"], f"{place}.function.parameters")
    except ApiError as error:
        error.message = f"{demanded_by} demands arguments that fit the schema. {error.message}"
        raise
    rules |= grammar.rules
    return grammar.start


def demanded_calls(tool_format: ToolFormat, tools: Iterable[tuple[str, Node]]) -> list[Node]:
    """A call of each tool, as the whole answer.

    Args:
        tool_format: how it is written.
        tools: (name, arguments).

    Raises:
        ApiError: it is not written as JSON.
    """
    calls = []
    for name, arguments in tools:
        around = written(tool_format, name)
        if around is None:
            raise not_supported(
                "tool_choice",
                "in this model's form the arguments of calls are not JSON, so answers cannot be held to it; send "
                "tool_choice: auto without response_format",
            )
        calls.append(seq(around.first.encode(), arguments, around.last.encode()))
    return calls


def heads_of_calls(
    tool_format: ToolFormat, arguments: Mapping[str, Node], strict: Mapping[str, str], *, only_one: bool
) -> list[Head]:
    """Where free text ends because a call begins, and what may follow: that call, and others behind it.

    A format with a mark of its own before calls is held to from there on, to any of the tools. Without one, text that
    looks like a call could be anything up to the name of a strict tool.

    Args:
        tool_format: how calls are written.
        arguments: those of every tool by name.
        strict: names of tools whose calls must fit, and where they stand in the request.
        only_one: there may be one call only.

    Raises:
        ApiError: calls are not written as JSON.
    """
    around: dict[str, _Written] = {}
    for name in arguments:
        found = written(tool_format, name)
        if found is None:
            raise not_supported(
                next(iter(strict.values())),
                "in this model's form the arguments of calls are not JSON, so they cannot be held to the schema; leave "
                "strict out and look at the arguments",
            )
        around[name] = found
    more = alt(*(seq(form.between.encode(), arguments[name]) for name, form in around.items()))
    another = Count(more, 0, 0 if only_one else None)
    rests = {name: _rests(form, arguments[name], another) for name, form in around.items()}
    mark = _mark(tool_format, around.values())
    if mark:
        calls = [seq(form.first.removeprefix(mark).encode(), rests[name][0]) for name, form in around.items()]
        return [Head(mark.encode(), alt(*calls), start=mark)]
    return [head for name in strict for head in _heads(name, around[name], *rests[name])]


def _rests(form: _Written, arguments: Node, another: Node) -> tuple[Node, Node]:
    """What follows the beginning of a call that stands alone, and of one in a list."""
    listed = seq(arguments, another, form.end.encode())
    if form.first == form.listed and form.last == form.end:
        return listed, listed
    return seq(arguments, form.last.encode()), listed


def _mark(tool_format: ToolFormat, forms: Iterable[_Written]) -> str | None:
    """The mark that all calls begin with, if it is one that no other text has."""
    firsts = [text for form in forms for text in (form.first, form.listed)]
    marks = (mark for mark in tool_format.openings if mark in tool_format.marks)
    return next((mark for mark in marks if all(text.startswith(mark) for text in firsts)), None)


def _heads(name: str, form: _Written, alone: Node, listed: Node) -> list[Head]:
    """The beginnings of a tool's calls, up to their arguments, as the format writes them and without JSON's blanks."""
    if form.first.strip() == name:
        # A name is a word as any other: it must be a line of its own, with an object behind.
        texts = {"\n" + form.first: alone, form.between: alone}
        return [Head(f"{text}{{".encode(), rest, b"{", form.first + "{") for text, rest in texts.items()]
    inside = form.between[_common(form.between, form.end) :]
    found = [Head(text.encode(), listed, start=form.listed) for text in (form.listed, inside)]
    if form.listed != form.first:
        found.append(Head(form.first.encode(), alone, start=form.first))
    narrow = [Head(_narrow(head.text), head.rest, start=head.start) for head in found]
    return found + [head for head in narrow if head not in found]


def _narrow(text: bytes) -> bytes:
    return text.replace(b'": ', b'":').replace(b', "', b',"').replace(b", {", b",{")


def _common(one: str, other: str) -> int:
    """Characters that two texts begin with alike."""
    return next((n for n, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))
