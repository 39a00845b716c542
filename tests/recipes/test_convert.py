"""`tunesmith data convert`: layouts into each other and back, nothing lost, or a refusal that says what."""

from __future__ import annotations

import json
from itertools import permutations

import pytest

from tunesmith.config.build import Checks, from_entries
from tunesmith.config.entries import Entry
from tunesmith.core.errors import DataError
from tunesmith.core.types import Source
from tunesmith.data.catalog import resolve
from tunesmith.data.formats import convert
from tunesmith.recipes.convert import convert_file

CALL = {"id": "1", "type": "function", "function": {"name": "f", "arguments": '{"x": 1}'}}
PLAIN = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]
TURNS = [{"role": "system", "content": "s"}, *PLAIN, *PLAIN]
TOOLS = [
    {"role": "user", "content": "q"},
    {"role": "assistant", "content": "I look it up.", "tool_calls": [CALL, {**CALL, "id": "2"}], "train": False},
    {"role": "tool", "content": "1", "tool_call_id": "1"},
    {"role": "tool", "content": "2", "tool_call_id": "2"},
    {"role": "assistant", "content": "a", "reasoning_content": "hm"},
]
SCHEMAS = [{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}]


@pytest.fixture
def change(tmp_path):
    """Writes rows, converts them, and gives (rows written, what was said, entry)."""

    def run(rows, layout, name="in.jsonl", given=None, **keys):
        path = tmp_path / name
        if given is None:
            path.write_text("\n".join(row if isinstance(row, str) else json.dumps(row) for row in rows))
        output = tmp_path / f"{layout}.json"
        entries = [Entry(key, value) for key, value in {"dataset": [given or str(path)], **keys}.items()]
        config = from_entries(entries, "data", "", checks=Checks(rules=False))
        text = convert_file(config, str(output), layout, overwrite=True)
        said, _, entry = text.partition("for dataset_info.json:\n")
        return json.loads(output.read_text()), said, json.loads(entry)

    return run


def reread(folder, rows, entry):
    (name,) = entry
    (folder / "dataset_info.json").write_text(json.dumps(entry))
    (spec,) = resolve([name], str(folder))
    stage = "dpo" if spec.ranking else "kto" if spec.columns.kto_tag else "sft"
    return [convert(row, spec, stage, Source("", 0)) for row in rows]


@pytest.mark.parametrize("pair", list(permutations(["alpaca", "sharegpt", "openai"], 2)), ids="-".join)
@pytest.mark.parametrize(
    "row",
    [
        {"messages": PLAIN},
        {"messages": TURNS, "id": 7, "topic": {"a": [1]}},
        {"messages": TURNS, "tools": SCHEMAS},
        {"messages": PLAIN, "tools": []},
        {"messages": PLAIN[:1], "chosen": PLAIN[1], "rejected": {"role": "assistant", "content": "b"}},
        {"messages": PLAIN, "label": False},
        {"messages": [{"role": "user", "content": " 你好 "}, {"role": "assistant", "content": ""}]},
    ],
)
def test_every_layout_into_every_other_keeps_the_example(change, tmp_path, row, pair):
    first, _, entry = change([row], pair[0])
    expected = reread(tmp_path, first, entry)
    second, said, other = change(first, pair[1], given=pair[0], dataset_dir=str(tmp_path))
    assert "read 1, kept 1, rejected 0" in said
    assert reread(tmp_path, second, other) == expected
    assert second[0].get("topic") == row.get("topic")
    assert second[0].get("id") == row.get("id")


@pytest.mark.parametrize("layout", ["sharegpt", "openai"])
def test_tool_calls_thoughts_and_marks_survive_chat_layouts(change, tmp_path, layout):
    rows, _, entry = change([{"messages": TOOLS, "tools": SCHEMAS}], layout)
    (found,) = reread(tmp_path, rows, entry)
    back, _, entry = change(rows, "openai", given=layout, dataset_dir=str(tmp_path))
    assert reread(tmp_path, back, entry) == [found]
    assert back[0]["messages"] == TOOLS
    assert back[0]["tools"] == SCHEMAS


@pytest.mark.parametrize(
    ("rows", "layout", "column", "reason"),
    [
        ([{"messages": TOOLS}], "alpaca", "message 2", "no place for a tool call"),
        ([{"messages": TOOLS[-1:] and [*PLAIN[:1], TOOLS[-1]]}], "alpaca", "message 2", "no place for a thought"),
        ([{"messages": [PLAIN[0], {**PLAIN[1], "weight": 0}]}], "alpaca", "message 2", "a mark of what is trained"),
        ([{"messages": [{**PLAIN[0], "name": "Ann"}, PLAIN[1]]}], "openai", "messages[0].name", "would be lost"),
        ([{"messages": PLAIN, "text": "beside"}], "alpaca", "text", "would be read in the new layout"),
        (
            [{"messages": [*TOOLS[:2], *reversed(TOOLS[2:4]), TOOLS[4]]}],
            "openai",
            "messages[2].tool_call_id",
            "not in the order",
        ),
        (
            [{"messages": [TOOLS[0], {**TOOLS[1], "content": '{"a": 1} is what I want'}, *TOOLS[2:]]}],
            "sharegpt",
            "",
            "",
        ),
    ],
)
def test_what_would_be_lost_is_refused_and_nothing_is_written(change, tmp_path, rows, layout, column, reason):
    with pytest.raises(DataError) as caught:
        change(rows, layout)
    first = caught.value.problems[0]
    assert reason in first.what
    assert f"in.jsonl, row 1{f', column {column}' if column else ''}" in first.where
    assert first.fix
    assert not (tmp_path / f"{layout}.json").exists()
    assert list(tmp_path.glob(".*")) == []


def test_bad_rows_are_left_out_only_by_name(change, tmp_path):
    rows = [{"messages": PLAIN}, "{broken", {"messages": []}]
    with pytest.raises(DataError, match="2 rows cannot be used"):
        change(rows, "alpaca")
    written, said, _ = change(rows, "alpaca", skip_bad_rows=True)
    assert written == [{"instruction": "q", "input": "", "output": "a"}]
    assert "read 3, kept 1, rejected 2" in said


def test_outputs_that_are_in_the_way_or_of_another_type(change, tmp_path):
    (tmp_path / "in.jsonl").write_text(json.dumps({"messages": PLAIN}))
    config = from_entries([Entry("dataset", [str(tmp_path / "in.jsonl")])], "data", "", checks=Checks(rules=False))
    lines = tmp_path / "out.jsonl"
    convert_file(config, str(lines), "sharegpt")
    assert json.loads(lines.read_text())["conversations"][0] == {"from": "human", "value": "q"}
    with pytest.raises(DataError, match="the file exists"):
        convert_file(config, str(lines), "sharegpt")
    with pytest.raises(DataError, match=r"a \.csv file is not written"):
        convert_file(config, str(tmp_path / "out.csv"), "sharegpt")
    (tmp_path / "plain.txt").write_text("a text")
    with pytest.raises(DataError, match="plain texts"):
        change([], "openai", given=str(tmp_path / "plain.txt"))
