"""Tools through the official client: described, called, answered, demanded."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import openai
import pytest
from tests.serving.conftest import Stage, on_stage

WEATHER = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "The weather in a city.",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}, "days": {"type": "integer"}},
            "required": ["city"],
        },
    },
}
CLOCK = {"type": "function", "function": {"name": "clock"}}
TOOLS = [WEATHER, CLOCK]
ONE = '<tool_call>\n{"name": "weather", "arguments": {"city": "Köln"}}\n</tool_call>'
TWO = ONE + '\n<tool_call>\n{"name": "clock", "arguments": {}}\n</tool_call>'


@pytest.fixture(scope="module")
def stage() -> Iterator[Stage]:
    with on_stage("qwen") as running:
        yield running


def streamed(chunks: Any) -> tuple[str, list[dict[str, str]], str | None]:
    """Content, calls and finish reason out of the pieces of a stream."""
    content, calls, reason = "", [], None
    for chunk in chunks:
        (choice,) = chunk.choices
        content += choice.delta.content or ""
        for piece in choice.delta.tool_calls or []:
            if piece.id:
                assert piece.index == len(calls)
                calls.append({"id": piece.id, "name": piece.function.name, "arguments": ""})
            calls[piece.index]["arguments"] += piece.function.arguments
        reason = choice.finish_reason or reason
    return content, calls, reason


def test_a_call(stage: Stage) -> None:
    stage.says("Let me see.\n" + ONE)
    choice = stage.ask(tools=TOOLS).choices[0]
    assert choice.finish_reason == "tool_calls"
    assert choice.message.content == "Let me see."
    (call,) = choice.message.tool_calls
    assert call.type == "function"
    assert call.id.startswith("call_")
    assert call.function.name == "weather"
    assert json.loads(call.function.arguments) == {"city": "Köln"}
    assert '"name": "clock"' in stage.prompt


def test_parallel_calls_and_not(stage: Stage) -> None:
    stage.says(TWO)
    message = stage.ask(tools=TOOLS).choices[0].message
    assert message.content is None
    assert [call.function.name for call in message.tool_calls] == ["weather", "clock"]
    assert len({call.id for call in message.tool_calls}) == 2
    message = stage.ask(tools=TOOLS, parallel_tool_calls=False).choices[0].message
    assert [call.function.name for call in message.tool_calls] == ["weather"]


def test_calls_in_a_stream(stage: Stage) -> None:
    stage.says("Let me see.\n" + TWO)
    content, calls, reason = streamed(stage.ask(tools=TOOLS, stream=True))
    assert content == "Let me see."
    assert [call["name"] for call in calls] == ["weather", "clock"]
    assert [json.loads(call["arguments"]) for call in calls] == [{"city": "Köln"}, {}]
    assert reason == "tool_calls"


def test_text_that_only_looks_like_a_call_is_text(stage: Stage) -> None:
    for text in (
        "<tool_call>\nnot json\n</tool_call>",
        '<tool_call>\n{"name": "other", "arguments": {}}\n</tool_call>',
    ):
        stage.says(text)
        choice = stage.ask(tools=TOOLS).choices[0]
        assert (choice.message.content, choice.finish_reason) == (text, "stop")
        assert streamed(stage.ask(tools=TOOLS, stream=True)) == (text, [], "stop")


def test_without_tools_a_call_is_text(stage: Stage) -> None:
    stage.says(ONE)
    assert stage.ask().choices[0].message.content == ONE
    assert stage.ask(tools=TOOLS, tool_choice="none").choices[0].message.content == ONE
    assert "clock" not in stage.prompt


def test_content_streams_while_no_call_begins(stage: Stage) -> None:
    stage.says("one two < three four")
    chunks = list(stage.ask(tools=TOOLS, stream=True))
    assert sum(bool(chunk.choices[0].delta.content) for chunk in chunks) > 3
    assert streamed(chunks)[0] == "one two < three four"


def test_json_or_a_call(stage: Stage) -> None:
    """Both asked for: the answer is a call or JSON that fits, and nothing else."""
    schema = {"type": "object", "properties": {"city": {"const": "Bonn"}}, "required": ["city"]}
    wanted = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
    stage.says(ONE)
    answer = stage.ask(tools=TOOLS, response_format=wanted)
    assert answer.choices[0].finish_reason == "tool_calls"
    machine = stage.seen.constraint.masks.automaton
    for text, fits in (('{"city": "Bonn"}', True), ('{"city": "Köln"}', False), (ONE, True), ("Bonn", False)):
        state = machine.move_all(machine.first(), text.encode())
        assert (state >= 0 and machine.may_end(state)) is fits, text
    stage.says('{"city": "Bonn"}')
    answer = stage.ask(tools=TOOLS, response_format=wanted)
    assert (answer.choices[0].finish_reason, answer.choices[0].message.content) == ("stop", '{"city": "Bonn"}')
    stage.says(ONE)
    stage.ask(tools=TOOLS, response_format=wanted, tool_choice="required")
    machine = stage.seen.constraint.masks.automaton
    assert machine.move_all(machine.first(), b'{"city"') < 0


def test_results_go_back_in_any_order(stage: Stage) -> None:
    stage.says(TWO)
    message = stage.ask("Weather and time?", tools=TOOLS).choices[0].message
    first, second = message.tool_calls
    history = [{"role": "user", "content": "Weather and time?"}, message.model_dump(exclude_none=True)]
    results = [
        {"role": "tool", "tool_call_id": second.id, "content": "noon"},
        {"role": "tool", "tool_call_id": first.id, "content": [{"type": "text", "text": "rain"}]},
    ]
    stage.says("Rain at noon.")
    answer = stage.ask(messages=history + results, tools=TOOLS)
    assert answer.choices[0].message.content == "Rain at noon."
    assert stage.prompt.index("rain") < stage.prompt.index("noon")
    assert "Köln" in stage.prompt


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"tool_call_id": "other"}, "no call before it has the id 'other'"),
        ({"tool_call_id": None}, "tool_call_id is missing"),
    ],
)
def test_results_must_name_their_call(stage: Stage, changes: dict[str, Any], said: str) -> None:
    call = {"id": "a", "type": "function", "function": {"name": "clock", "arguments": "{}"}}
    messages = [
        {"role": "user", "content": "Time?"},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "a", "content": "noon", **changes},
    ]
    with pytest.raises(openai.BadRequestError, match=said):
        stage.ask(messages=messages, tools=TOOLS)


def test_a_call_can_be_demanded(stage: Stage) -> None:
    """The fake engine is free to say anything; that the real ones cannot is shown in test_constraint.py."""
    stage.says(ONE)
    for choice in ("required", {"type": "function", "function": {"name": "weather"}}):
        answer = stage.ask(tools=TOOLS, tool_choice=choice)
        assert answer.choices[0].finish_reason == "tool_calls"
        assert stage.seen.constraint is not None
    stage.ask(tools=TOOLS, tool_choice="auto")
    assert stage.seen.constraint is None


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"tool_choice": "required"}, "no tools to choose from"),
        ({"tools": [*TOOLS, CLOCK]}, "two tools named 'clock'"),
        ({"tools": TOOLS, "tool_choice": {"type": "function", "function": {"name": "x"}}}, "there is no tool 'x'"),
        ({"tools": [{"type": "code_interpreter"}]}, "tools"),
        ({"tools": [{"type": "function", "function": {"name": ""}}]}, "name"),
        ({"functions": [{"name": "clock"}]}, "pass tools"),
        ({"tools": TOOLS, "tool_choice": "sometimes"}, "tool_choice"),
    ],
)
def test_tools_that_cannot_be(stage: Stage, fields: dict[str, Any], said: str) -> None:
    with pytest.raises(openai.BadRequestError, match=said):
        stage.ask(**fields)


def test_a_template_without_tools_says_so(stage: Stage) -> None:
    with on_stage() as plain, pytest.raises(openai.BadRequestError, match="does not write tools"):
        plain.ask(tools=TOOLS)


def test_forms_that_are_no_json_cannot_be_demanded() -> None:
    with on_stage("qwen3_5") as running:
        running.says("<tool_call>\n<function=weather>\n<parameter=city>\nKöln\n</parameter>\n</function>\n</tool_call>")
        assert running.ask(tools=TOOLS).choices[0].finish_reason == "tool_calls"
        with pytest.raises(openai.BadRequestError, match="cannot be held to it"):
            running.ask(tools=TOOLS, tool_choice="required")
