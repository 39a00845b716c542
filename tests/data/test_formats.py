"""Rows to examples: every layout, and planted faults, each with column, reason and fix."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tunesmith.core.errors import DataError
from tunesmith.core.types import Conversation, Feedback, Message, Preference, Source, Text, ToolCall
from tunesmith.data.catalog import OPENAI_COLUMNS, OPENAI_TAGS, Columns, DatasetSpec, Tags
from tunesmith.data.examples import read_examples
from tunesmith.data.formats import RowError, convert, detect, stage_problems
from tunesmith.data.report import DatasetReport

HERE = Source("x.jsonl", 1)
ALPACA = DatasetSpec("a", Path("x.jsonl"))
FULL = replace(
    ALPACA, columns=replace(ALPACA.columns, system="system", history="history", tools="tools"), has_columns=True
)
SHAREGPT = replace(
    ALPACA,
    formatting="sharegpt",
    columns=Columns(messages="conversations", system="system", tools="tools"),
    has_columns=True,
)
OPENAI = replace(ALPACA, formatting="openai", columns=OPENAI_COLUMNS, tags=OPENAI_TAGS)
CALL = {"name": "f", "arguments": {"x": 1}}


def user(text):
    return {"from": "human", "value": text}


def gpt(text):
    return {"from": "gpt", "value": text}


def said(role, content, **more):
    return {"role": role, "content": content, **more}


def rows_of(spec, row, stage="sft"):
    return convert(row, spec, stage, HERE)


def messages_of(spec, row):
    return [(message.role, message.content) for message in rows_of(spec, row).messages]


def test_alpaca_joins_prompt_and_query_and_skips_empty_parts():
    assert messages_of(ALPACA, {"instruction": "a", "input": "b", "output": "c"}) == [
        ("user", "a\nb"),
        ("assistant", "c"),
    ]
    assert messages_of(ALPACA, {"instruction": "a", "output": ""}) == [("user", "a"), ("assistant", "")]
    assert messages_of(ALPACA, {"instruction": "a", "input": None, "output": "c"})[0] == ("user", "a")


def test_alpaca_with_system_and_history():
    row = {"instruction": "c", "output": "d", "system": "s", "history": [["a", "b"]]}
    expected = [("system", "s"), ("user", "a"), ("assistant", "b"), ("user", "c"), ("assistant", "d")]
    assert messages_of(FULL, row) == expected
    assert messages_of(FULL, {**row, "history": json.dumps(row["history"])}) == expected
    assert messages_of(FULL, {**row, "history": None, "system": None}) == expected[3:]


def test_sharegpt_with_system_in_the_list_over_the_column():
    row = {"conversations": [{"from": "system", "value": "in"}, user("a"), gpt("b")], "system": "column"}
    assert messages_of(SHAREGPT, row)[0] == ("system", "in")
    row["conversations"] = row["conversations"][1:]
    assert messages_of(SHAREGPT, row)[0] == ("system", "column")


@pytest.mark.parametrize(
    ("value", "content", "calls"),
    [
        (json.dumps(CALL), "", [CALL]),
        (json.dumps([CALL, CALL]), "", [CALL, CALL]),
        (json.dumps({**CALL, "arguments": '{"x": 1}'}), "", [CALL]),
        ("<think>{hm}</think>\n" + json.dumps(CALL), "<think>{hm}</think>", [CALL]),
        ("I look it up.\n" + json.dumps(CALL), "I look it up.", [CALL]),
        (f"<tool_call>\n{json.dumps(CALL)}\n</tool_call>", "", [CALL]),
        (
            f"<tool_call>\n{json.dumps(CALL)}\n</tool_call>\n<tool_call>\n{json.dumps(CALL)}\n</tool_call>",
            "",
            [CALL, CALL],
        ),
        ('{"name": "f"}', "", [{"name": "f", "arguments": {}}]),
    ],
)
def test_function_call_turns(value, content, calls):
    row = {
        "conversations": [
            user("a"),
            {"from": "function_call", "value": value},
            {"from": "observation", "value": "1"},
            gpt("b"),
        ]
    }
    call, result = rows_of(SHAREGPT, row).messages[1:3]
    assert (call.role, call.content) == ("assistant", content)
    assert [{"name": one.name, "arguments": one.arguments} for one in call.tool_calls] == calls
    assert (result.role, result.content) == ("tool", "1")


@pytest.mark.parametrize(
    ("tools", "expected"),
    [
        (None, None),
        ("", None),
        ("[]", ()),
        ([{"name": "f"}], ({"name": "f"},)),
        ('[{"name": "f"}]', ({"name": "f"},)),
        ([{"type": "function", "function": {"name": "f", "parameters": None}}], ({"name": "f"},)),
    ],
)
def test_tools_in_every_spelling(tools, expected):
    row = {"conversations": [user("a"), gpt("b")], "tools": tools}
    assert rows_of(SHAREGPT, row).tools == expected


def test_openai_messages_lose_nothing():
    calls = [
        {"id": "1", "type": "function", "function": {"name": "f", "arguments": '{"x": 1}'}},
        {"id": "2", "type": "function", "function": {"name": "f", "arguments": {"x": 2}}},
    ]
    row = {
        "messages": [
            said("developer", "s"),
            said("user", [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]),
            said("assistant", "beside", tool_calls=calls, reasoning_content="hm"),
            said("tool", "1", tool_call_id="1"),
            said("tool", "2", tool_call_id="2"),
            said("assistant", None, tool_calls=calls[:1], weight=0),
            said("tool", "3"),
        ]
    }
    found = rows_of(OPENAI, row).messages
    both = (ToolCall("f", {"x": 1}, "1"), ToolCall("f", {"x": 2}, "2"))
    assert found == (
        Message("system", "s"),
        Message("user", "ab"),
        Message("assistant", "beside", both, "hm"),
        Message("tool", "1"),
        Message("tool", "2"),
        Message("assistant", "", both[:1], trained=False),
        Message("tool", "3"),
    )


@pytest.mark.parametrize(
    ("extra", "role", "expected"),
    [
        ({"weight": 0}, "assistant", False),
        ({"weight": 1}, "assistant", True),
        ({"weight": 1.0}, "assistant", True),
        ({"weight": 1}, "user", None),
        ({"train": False}, "assistant", False),
        ({"train": True}, "user", True),
        ({"weight": None}, "assistant", None),
    ],
)
def test_weight_and_train_of_a_message(extra, role, expected):
    messages = [said("user", "a"), said("assistant", "b")]
    messages[role == "assistant"].update(extra)
    found = rows_of(OPENAI, {"messages": messages}).messages
    assert found[role == "assistant"].trained is expected


def test_sharegpt_with_openai_tags_as_documented_upstream():
    tags = Tags("role", "content", "user", "assistant", "tool", "function_call", "system")
    row = {"conversations": [said("user", "a"), said("assistant", "b")]}
    assert messages_of(replace(SHAREGPT, tags=tags), row) == [("user", "a"), ("assistant", "b")]


def test_preferences_of_every_layout():
    ranked = replace(ALPACA, ranking=True, columns=replace(ALPACA.columns, chosen="chosen", rejected="rejected"))
    found = rows_of(ranked, {"instruction": "a", "chosen": "x", "rejected": "y"}, "dpo")
    assert isinstance(found, Preference)
    assert (found.prompt.messages, found.chosen.content, found.rejected.content) == ((Message("user", "a"),), "x", "y")
    chat = replace(
        SHAREGPT, ranking=True, columns=Columns(messages="conversations", chosen="chosen", rejected="rejected")
    )
    found = rows_of(chat, {"conversations": [user("a")], "chosen": gpt("x"), "rejected": gpt("y")}, "rm")
    assert (found.chosen.content, found.rejected.content) == ("x", "y")
    with pytest.raises(RowError, match="not from the assistant"):
        rows_of(chat, {"conversations": [user("a")], "chosen": user("x"), "rejected": gpt("y")}, "rm")


@pytest.mark.parametrize(("tag", "expected"), [(True, True), (False, False), (0, False), (1, True), ("true", True)])
def test_feedback(tag, expected):
    spec = replace(ALPACA, columns=replace(ALPACA.columns, kto_tag="label"))
    found = rows_of(spec, {"instruction": "a", "output": "", "label": tag}, "kto")
    assert isinstance(found, Feedback)
    assert found.is_desirable is expected
    with pytest.raises(RowError, match="true or false"):
        rows_of(spec, {"instruction": "a", "output": "b", "label": None}, "kto")


def test_plain_text():
    spec = replace(ALPACA, columns=Columns(prompt="text"), has_columns=True)
    assert rows_of(spec, {"text": "t"}, "pt") == Text("t", HERE)
    assert rows_of(SHAREGPT, {"conversations": [user("a"), gpt("b")]}, "pt") == Text("a", HERE)


@pytest.mark.parametrize(
    ("spec", "stage", "said_of_it"),
    [
        (replace(ALPACA, ranking=True), "sft", "pairs of answers"),
        (ALPACA, "dpo", "ranking: true"),
        (replace(ALPACA, ranking=True), "dpo", "chosen and rejected are not named"),
        (ALPACA, "kto", "kto_tag"),
        (replace(ALPACA, columns=Columns(prompt="text")), "sft", "needs an answer"),
        (replace(ALPACA, columns=Columns(response="text")), "sft", "neither prompt nor query"),
        (replace(SHAREGPT, columns=Columns(prompt="text")), "sft", "column of messages"),
        (replace(ALPACA, columns=replace(ALPACA.columns, images="images")), "sft", "images"),
        (replace(ALPACA, formatting="text"), "sft", "use stage pt"),
    ],
)
def test_stage_and_layout_that_do_not_fit(spec, stage, said_of_it):
    assert said_of_it in "\n".join(map(str, stage_problems(spec, stage)))


@pytest.mark.parametrize(
    ("row", "formatting", "ranking", "stage"),
    [
        ({"instruction": "a", "input": "", "output": "b"}, "alpaca", False, "sft"),
        ({"instruction": "a", "output": "b", "history": [], "system": "s"}, "alpaca", False, "sft"),
        ({"instruction": "a", "chosen": "b", "rejected": "c"}, "alpaca", True, "dpo"),
        ({"conversations": [user("a"), gpt("b")], "tools": "[]"}, "sharegpt", False, "sft"),
        ({"conversations": [user("a")], "chosen": gpt("b"), "rejected": gpt("c")}, "sharegpt", True, "dpo"),
        ({"messages": [said("user", "a"), said("assistant", "b")]}, "openai", False, "sft"),
        ({"messages": [said("user", "a"), said("assistant", "b")], "label": True}, "openai", False, "kto"),
        ({"prompt": "a", "completion": "b"}, "completion", False, "sft"),
        ({"prompt": [said("user", "a")], "completion": [said("assistant", "b")]}, "completion", False, "sft"),
        ({"prompt": "a", "chosen": "b", "rejected": "c"}, "completion", True, "dpo"),
        ({"prompt": "a", "completion": "b", "label": False}, "completion", False, "kto"),
        ({"text": "a"}, "text", False, "pt"),
    ],
)
def test_layout_is_detected_and_the_row_converts(row, formatting, ranking, stage):
    spec, line = detect(replace(ALPACA, formatting="auto"), [row])
    assert (spec.formatting, spec.ranking) == (formatting, ranking)
    assert formatting in line
    assert stage_problems(spec, stage) == []
    example = rows_of(spec, row, stage)
    if stage == "sft":
        assert [message.content for message in example.messages][-2:] == ["a", "b"]


def test_unknown_layout_names_the_columns():
    with pytest.raises(DataError, match="foo"):
        detect(replace(ALPACA, formatting="auto"), [{"foo": 1}])


OK = '{"instruction": "a", "output": "b"}'


def chat(*messages):
    return json.dumps({"conversations": list(messages)})


def openai(*messages):
    return json.dumps({"messages": list(messages)})


def call(value):
    return chat(user("a"), {"from": "function_call", "value": value})


# 36 planted faults: (layout, line, column, reason). The fault is row 2 of three; rows 1 and 3 are sound.
FAULTS = [
    (ALPACA, '{"instruction": "a", "output": "b"', "", "broken JSON"),
    (ALPACA, '{"instruction": "a" "output": "b"}', "", "broken JSON"),
    (ALPACA, '["a", "b"]', "", "must be an object"),
    (ALPACA, "null", "", "must be an object"),
    (ALPACA, "\x00\x00", "", "broken JSON"),
    (ALPACA, '{"instruction": "a"}', "output", "the column is missing"),
    (ALPACA, '{"output": "b"}', "instruction", "the column is missing"),
    (ALPACA, '{"question": "a", "output": "b"}', "instruction", "the column is missing"),
    (ALPACA, '{"instruction": null, "output": "b"}', "instruction", "null where text"),
    (ALPACA, '{"instruction": "a", "output": null}', "output", "null where text"),
    (ALPACA, '{"instruction": 5, "output": "b"}', "instruction", "a number where text"),
    (ALPACA, '{"instruction": "a", "output": ["b"]}', "output", "a list where text"),
    (ALPACA, '{"instruction": "a", "output": {"t": "b"}}', "output", "an object where text"),
    (ALPACA, '{"instruction": "a", "input": true, "output": "b"}', "input", "true/false where text"),
    (ALPACA, '{"instruction": "a\\u0000", "output": "b"}', "instruction", "NUL"),
    (ALPACA, '{"instruction": "\\ud83d", "output": "b"}', "instruction", "surrogate"),
    (FULL, '{"instruction": "a", "output": "b", "history": "x"}', "history", "text where a list"),
    (FULL, '{"instruction": "a", "output": "b", "history": [["x"]]}', "history[0]", "a list where a pair"),
    (FULL, '{"instruction": "a", "output": "b", "history": [["x", null]]}', "history[0][1]", "null where text"),
    (FULL, '{"instruction": "a", "output": "b", "system": 1}', "system", "a number where text"),
    (FULL, '{"instruction": "a", "output": "b", "tools": "{"}', "tools", "broken JSON"),
    (FULL, '{"instruction": "a", "output": "b", "tools": [{}]}', "tools[0]", "without a name"),
    (SHAREGPT, OK, "conversations", "the column is missing"),
    (SHAREGPT, chat(), "conversations", "is empty"),
    (SHAREGPT, '{"conversations": "hello"}', "conversations", "text where a list"),
    (SHAREGPT, chat(gpt("b"), user("a")), "conversations[0]", "begins with the assistant"),
    (SHAREGPT, chat(user("a"), user("a"), gpt("b")), "conversations[1]", "a user message after a user"),
    (SHAREGPT, chat(user("a"), gpt("b"), gpt("c")), "conversations[2]", "two assistant messages"),
    (SHAREGPT, chat(user("a"), gpt("b"), user("c")), "conversations", "the last message is from user"),
    (SHAREGPT, chat(user("a"), {"from": "system", "value": "s"}), "conversations[1]", "after the first place"),
    (SHAREGPT, chat(user("a"), {"from": "bot", "value": "b"}), "conversations[1].from", "unknown role 'bot'"),
    (SHAREGPT, chat(user("a"), {"role": "gpt", "value": "b"}), "conversations[1]", "has no 'from'"),
    (SHAREGPT, chat(user("a"), {"from": "gpt", "text": "b"}), "conversations[1]", "has no 'value'"),
    (SHAREGPT, chat(user("a"), gpt(None)), "conversations[1].value", "null where text"),
    (SHAREGPT, chat(user("a"), "b"), "conversations[1]", "text where a message"),
    (SHAREGPT, call("just words"), "conversations[1].value", "without JSON"),
    (SHAREGPT, call('{"name": "f", "arguments": {}'), "conversations[1].value", "broken JSON"),
    (SHAREGPT, call('{"name": "f", "arguments": [1]}'), "conversations[1].value.arguments", "a list where an object"),
    (SHAREGPT, call('{"name": "f"} and more'), "conversations[1].value", "text after a call"),
    (OPENAI, openai(said("user", "a"), said("assistant", None)), "messages[1].content", "null where text"),
    (
        OPENAI,
        openai(said("user", [{"type": "image_url"}]), said("assistant", "b")),
        "messages[0].content[0]",
        "image_url",
    ),
    (OPENAI, openai(said("user", "a"), said("assistant", "b", weight=0.5)), "messages[1].weight", "neither 0 nor 1"),
    (
        OPENAI,
        openai(said("user", "a"), said("assistant", "", tool_calls=[{"function": {"arguments": "{}"}}])),
        "messages[1].tool_calls[0]",
        "without a name",
    ),
]
SOUND = {
    "alpaca": OK,
    "sharegpt": chat(user("a"), gpt("b")),
    "openai": openai(said("user", "a"), said("assistant", "b")),
}


@pytest.mark.parametrize(("spec", "line", "column", "reason"), FAULTS)
def test_planted_faults_are_reported_with_file_row_column_reason(tmp_path, spec, line, column, reason):
    path = tmp_path / "planted.jsonl"
    sound = SOUND[spec.formatting]
    path.write_bytes(b"\xef\xbb\xbf" + "\r\n".join([sound, line, sound, ""]).encode("utf-8", "surrogatepass"))
    report = DatasetReport("planted")
    kept = list(read_examples(replace(spec, path=path), "sft", None, 0, report))
    assert [example.source.row for example in kept] == [1, 3]
    assert (report.read, report.rejected) == (3, 1)
    (entry,) = report.rejects
    assert (entry.source, entry.column) == (Source(str(path), 2), column)
    assert reason in entry.reason
    assert entry.fix


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["from", "value", "role", "content", "tool_calls", "name"]), inner, max_size=3
        )
    ),
    max_leaves=6,
)
COLUMNS = st.sampled_from(
    ["instruction", "input", "output", "system", "history", "tools", "conversations", "messages", "text", "x"]
)


@settings(max_examples=150, deadline=None)
@given(
    rows=st.lists(
        st.dictionaries(COLUMNS, VALUES, max_size=4)
        | VALUES
        | st.sampled_from([json.loads(text) for text in SOUND.values()]),
        min_size=1,
        max_size=6,
    ),
    spec=st.sampled_from([ALPACA, FULL, SHAREGPT, OPENAI]),
    torn=st.booleans(),
)
def test_whatever_the_rows_every_one_is_kept_or_rejected(tmp_path_factory, rows, spec, torn):
    path = tmp_path_factory.mktemp("garbage") / "x.jsonl"
    text = "\n".join(json.dumps(row) for row in rows)
    path.write_text(text[: -len(text) // 3] if torn and len(text) > 3 else text)
    lines = [line for line in path.read_text().split("\n") if line.strip()]
    report = DatasetReport("x")
    kept = list(read_examples(replace(spec, path=path), "sft", None, 0, report))
    assert report.read == len(lines) == len(kept) + report.rejected
    assert sum(report.reasons.values()) == report.rejected
    assert all(
        isinstance(example, Conversation) and example.messages[-1].role in ("assistant", "tool") for example in kept
    )
