"""Planted faults in files of every kind and for every stage: `data check` names file, row, column, reason and fix."""

from __future__ import annotations

import json

import pytest

from tunesmith.config.schema import RunConfig
from tunesmith.core.errors import DataError
from tunesmith.data.template import load_template
from tunesmith.models import tokenizer as loading
from tunesmith.recipes.data import check

OK = '{"instruction": "q", "output": "a"}'
CHAT = '{"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]}'
SHARE = '{"conversations": [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}]}'
PAIR = '{"prompt": "q", "chosen": "a", "rejected": "b"}'
MARK = '{"prompt": "q", "completion": "a", "label": true}'
TEXT = '{"text": "a text"}'


def three(sound, bad):
    return f"{sound}\n{bad}\n{sound}\n"


def chat(*messages):
    return json.dumps({"messages": [{"role": role, **more} for role, more in messages]})


def share(*messages):
    return json.dumps({"conversations": [{"from": role, "value": text} for role, text in messages]})


USER, BOT = ("user", {"content": "q"}), ("assistant", {"content": "a"})

# file name, content, stage, row, column, reason
ROW_FAULTS = [
    ("cut_line.jsonl", three(OK, OK[:-9]), "sft", 2, "", "broken JSON: Unterminated string"),
    ("comma.jsonl", three(OK, OK[:-1] + ",}"), "sft", 2, "", "broken JSON"),
    ("bom.jsonl", "\ufeff" + three(OK, "{"), "sft", 2, "", "broken JSON"),
    ("crlf.jsonl", three(OK, "oops").replace("\n", "\r\n"), "sft", 2, "", "broken JSON"),
    ("list.jsonl", three(OK, '["q", "a"]'), "sft", 2, "", "a row must be an object"),
    ("latin.jsonl", three(OK, '{"instruction": "q", "output": "é"}').encode("latin-1"), "sft", 2, "", "not UTF-8"),
    ("missing.jsonl", three(OK, '{"instruction": "q"}'), "sft", 2, "output", "the column is missing"),
    ("null.jsonl", three(OK, '{"instruction": "q", "output": null}'), "sft", 2, "output", "null where text"),
    ("number.jsonl", three(OK, '{"instruction": 3, "output": "a"}'), "sft", 2, "instruction", "a number where text"),
    ("object.jsonl", three(OK, '{"instruction": "q", "output": {}}'), "sft", 2, "output", "an object where text"),
    ("nul.jsonl", three(OK, '{"instruction": "q", "output": "\\u0000"}'), "sft", 2, "output", "NUL"),
    ("half.jsonl", three(OK, '{"instruction": "q", "output": "\\ud83d"}'), "sft", 2, "output", "surrogate"),
    ("mixed.jsonl", three(OK, CHAT), "sft", 2, "instruction", "the column is missing"),
    ("rows.json", f"[{OK}, 7, {OK}]", "sft", 2, "", "a row must be an object"),
    ("cells.csv", 'instruction,output\nq,a\nq,a,b\n"q, r",a\n', "sft", 3, "", "the row has 3 cells, the header 2"),
    ("order.jsonl", three(CHAT, chat(BOT, USER)), "sft", 2, "messages[0]", "begins with the assistant"),
    ("twice.jsonl", three(CHAT, chat(USER, BOT, BOT)), "sft", 2, "messages[2]", "two assistant messages in a row"),
    ("asks.jsonl", three(CHAT, chat(USER, USER, BOT)), "sft", 2, "messages[1]", "a user message after a user"),
    ("open.jsonl", three(CHAT, chat(USER, BOT, USER)), "sft", 2, "messages", "the last message is from user"),
    ("none.jsonl", three(CHAT, '{"messages": []}'), "sft", 2, "messages", "the list of messages is empty"),
    ("role.jsonl", three(CHAT, chat(USER, ("bot", {"content": "a"}))), "sft", 2, "messages[1].role", "unknown role"),
    ("keys.jsonl", three(CHAT, chat(USER, ("assistant", {"text": "a"}))), "sft", 2, "messages[1]", "has no 'content'"),
    ("late.jsonl", three(CHAT, chat(USER, ("system", {"content": "s"}))), "sft", 2, "messages[1]", "after the first"),
    (
        "weight.jsonl",
        three(CHAT, chat(USER, ("assistant", {"content": "a", "weight": 2}))),
        "sft",
        2,
        "messages[1].weight",
        "neither 0 nor 1",
    ),
    (
        "call.jsonl",
        three(SHARE, share(("human", "q"), ("function_call", "{'name': 'f'}"))),
        "sft",
        2,
        "conversations[1].value",
        "broken JSON",
    ),
    ("words.jsonl", three(SHARE, '{"conversations": "q"}'), "sft", 2, "conversations", "text where a list is expected"),
    (
        "mute.jsonl",
        three(CHAT, chat(USER, ("assistant", {"content": "a", "train": False}))),
        "sft",
        2,
        "",
        "no trained token is left",
    ),
    ("pair.jsonl", three(PAIR, '{"prompt": "q", "chosen": "a"}'), "dpo", 2, "rejected", "the column is missing"),
    (
        "two.jsonl",
        three(PAIR, '{"prompt": "q", "chosen": [{"role": "user", "content": "q"}, 1], "rejected": "b"}'),
        "rm",
        2,
        "chosen",
        "a list of 2 messages",
    ),
    ("mark.jsonl", three(MARK, MARK.replace("true", '"good"')), "kto", 2, "label", "text where true or false"),
    ("blank.jsonl", three(MARK, MARK.replace("true", "null")), "kto", 2, "label", "null where true or false"),
    ("text.jsonl", three(TEXT, '{"text": ["a"]}'), "pt", 2, "text", "a list where text is expected"),
    ("nul.txt", "a line\nx\x00y\na line\n", "pt", 2, "", "the line holds a NUL byte"),
]
# file name, content, stage, reason
FILE_FAULTS = [
    ("empty.jsonl", "", "sft", "could be read|holds no rows"),
    ("utf16.jsonl", OK.encode("utf-16"), "sft", "UTF-16"),
    ("object.json", '{\n"data": [1, 2]\n}', "sft", "one object where a list of rows is expected"),
    ("twice.csv", "output,output\nq,a\n", "sft", "names a column twice"),
    ("strange.jsonl", '{"foo": 1}\n', "sft", "the layout is not known"),
    ("alpaca.jsonl", OK, "dpo", "needs a chosen and a rejected answer"),
    ("alpaca.jsonl", OK, "kto", "whether the answer is good"),
    ("pairs.jsonl", PAIR, "sft", "pairs of answers"),
    ("table.xlsx", "x", "sft", "no ending that says how to read it"),
]


def write(folder, name, content):
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


@pytest.fixture(autouse=True)
def _tiny(tmp_path, monkeypatch, tiny_tokenizer):
    monkeypatch.setenv("TUNESMITH_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(loading, "load_tokenizer", lambda config: tiny_tokenizer)
    monkeypatch.setattr(loading, "load_template_for", lambda config, tokenizer: load_template("chatml"))


def config_of(path, stage):
    return RunConfig.from_dict({"model_name_or_path": "m", "dataset": str(path), "stage": stage}, command="data")


def test_there_are_enough():
    assert len(ROW_FAULTS) >= 30


@pytest.mark.parametrize(
    ("name", "content", "stage", "row", "column", "reason"), ROW_FAULTS, ids=lambda value: str(value)[:12]
)
def test_a_planted_row_is_named_in_every_way(tmp_path, name, content, stage, row, column, reason):
    path = write(tmp_path, name, content)
    result = check(config_of(path, stage))
    (entry,) = result.as_json()["datasets"]
    assert (entry["read"], entry["kept"], entry["rejected"]) == (3, 2, 1)
    (reject,) = entry["rejects"]
    assert (reject["file"], reject["row"], reject["column"]) == (str(path), row, column)
    assert reason in reject["reason"]
    assert reject["fix"]
    (kind,) = entry["rejected_by_reason"]
    assert kind["first"] == [{"file": str(path), "row": row}]
    problem = result.problems[0]
    assert problem.where == f"{path}, row {row}" + (f", column {column}" if column else "")
    assert (problem.what, problem.fix) == (reject["reason"], reject["fix"])


@pytest.mark.parametrize(("name", "content", "stage", "reason"), FILE_FAULTS)
def test_a_file_that_cannot_be_used_is_named(tmp_path, name, content, stage, reason):
    path = write(tmp_path, name, content)
    with pytest.raises(DataError, match=reason) as caught:
        check(config_of(path, stage))
    (problem,) = caught.value.problems
    assert name.partition(".")[0] in f"{problem.where} {problem.what}"
    assert problem.fix
