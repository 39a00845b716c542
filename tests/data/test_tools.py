"""Tool formats: golden texts, what the reference reads back, and the round trip that it does not always manage."""

import json
import re
from datetime import date
from pathlib import Path

import pytest

from tunesmith.core.types import ToolCall
from tunesmith.data.tools import Parsed, load_tool_format, tool_format_names

DATA = json.loads((Path(__file__).parent / "golden" / "tool_formats.json").read_text("utf-8"))
TODAY = date(2025, 3, 9)
CALLS = {case: [ToolCall(name, json.loads(text)) for name, text in calls] for case, calls in DATA["calls"].items()}
READS_MORE = {"glm4", "llama3", "mistral", "lfm2", "qwen", "ling"}
"""Formats whose reader here also takes calls with text before or after them, or with quotes in their values."""


def schemas(calls):
    """Tools that declare the string arguments of the calls."""
    found = []
    for call in calls:
        types = {key: {"type": "string"} for key, value in call.arguments.items() if isinstance(value, str)}
        found.append({"name": call.name, "parameters": {"type": "object", "properties": types}})
    return found


@pytest.mark.parametrize("name", sorted(DATA["formats"]))
def test_tools_text(name):
    for case, expected in DATA["formats"][name]["tools_text"].items():
        got = load_tool_format(name).tools_text(DATA["toolsets"][case], TODAY)
        if isinstance(expected, dict):
            assert (name, case) == ("default", "parameters_absent")
            assert "> Tool Name: ping\nTool Description: Ping.\nTool Args:\n\n" in got
            continue
        assert got == re.sub(r"\{\{date:(.*?)\}\}", lambda match: TODAY.strftime(match[1]), expected), case


@pytest.mark.parametrize("name", sorted(DATA["formats"]))
def test_calls_text(name):
    for case, expected in DATA["formats"][name]["calls_text"].items():
        got = load_tool_format(name).calls_text(CALLS[case], True)
        if isinstance(expected, dict):
            assert (name, case) == ("glm4", "two")
            continue
        assert got == expected, case


@pytest.mark.parametrize("name", sorted(DATA["formats"]))
def test_what_the_reference_reads_is_read(name):
    for case, entry in DATA["formats"][name]["extract"].items():
        got = load_tool_format(name).parse(entry["text"], None)
        if isinstance(entry["result"], str):
            assert got is None or (name in READS_MORE and case in ("one", "text_before_call", "text_after_call")), case
            continue
        assert [[call.name, json.loads(text)] for call, (_, text) in zip(got.calls, entry["result"], strict=True)] == [
            [expected, json.loads(text)] for expected, text in entry["result"]
        ]
        assert [call.arguments for call in got.calls] == [json.loads(text) for _, text in entry["result"]], case


@pytest.mark.parametrize("name", tool_format_names())
@pytest.mark.parametrize("case", sorted(CALLS))
@pytest.mark.parametrize("before", ["", "I will look."])
def test_round_trip(name, case, before):
    tool_format, calls = load_tool_format(name), CALLS[case]
    written = (f"{before}\n" if before else "") + tool_format.calls_text(calls, False)
    parsed = tool_format.parse(written, schemas(calls))
    assert parsed is not None
    assert (list(parsed.calls), parsed.content) == (calls, before)


@pytest.mark.parametrize("name", tool_format_names())
@pytest.mark.parametrize(
    "text", ["", "Hello there.", "a {b} [c] 3 < 4", "<tool_call>", "Action: x", '{"name": 1}', "[1, 2]"]
)
def test_plain_text_is_no_call(name, text):
    assert load_tool_format(name).parse(text, None) is None


def test_names_with_dashes_and_arguments_as_json_text():
    assert load_tool_format("default").parse('Action: a-b\nAction Input: {"x": 1}', None).calls == (
        ToolCall("a-b", {"x": 1}),
    )
    text = '<tool_call>\n{"name": "f", "arguments": "{\\"x\\": 1}"}\n</tool_call>'
    assert load_tool_format("qwen").parse(text, None).calls == (ToolCall("f", {"x": 1}),)


def test_lfm2_reads_python_literals():
    text = "<|tool_call_start|>[f(a='x, y', b=True, c=None, d={'k': [1]})]<|tool_call_end|>"
    assert load_tool_format("lfm2").parse(text, None).calls == (
        ToolCall("f", {"a": "x, y", "b": True, "c": None, "d": {"k": [1]}}),
    )


def test_calls_between_one_pair_of_marks_may_have_several_lines() -> None:
    read = load_tool_format("minimax1").parse
    two = read(
        'Well.\n<tool_calls>\n{"name": "a",\n "arguments": {\n}}\n\n{"name": "b", "arguments": {}}</tool_calls>', None
    )
    assert two == Parsed("Well.", (ToolCall("a", {}), ToolCall("b", {})))
    for broken in ('{"name": "a", "arguments": {}} x', '{"name": "a"}', "[]", ""):
        assert read(f"<tool_calls>\n{broken}\n</tool_calls>", None) is None
