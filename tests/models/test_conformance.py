"""`conformance.json` of an exported folder, and `template verify`, which holds the folder against it."""

from __future__ import annotations

import json
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from tunesmith.config.schema import RunConfig
from tunesmith.core.errors import ExportError
from tunesmith.core.types import IGNORE_INDEX, Conversation, Message
from tunesmith.data.encode import encode
from tunesmith.data.render import RenderSettings, render, token_names
from tunesmith.data.template import load_template
from tunesmith.models.export import conformance
from tunesmith.models.export.conformance import FILE, check_conformance, prove, write_conformance
from tunesmith.recipes import export
from tunesmith.recipes.template import verify


@pytest.fixture
def exported(tmp_path: Path, tiny_model_dir: str) -> Path:
    keys = {"model_name_or_path": tiny_model_dir, "template": "chatml", "export_dir": str(tmp_path / "out")}
    return export.run(RunConfig.from_dict(keys, command="export"))


def held(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / FILE).read_text())
    return found


def change(folder: Path, **values: Any) -> None:
    (folder / FILE).write_text(json.dumps(held(folder) | values))


def test_an_export_says_what_it_was_trained_to_read(exported: Path, tiny_tokenizer: Any) -> None:
    facts = held(exported)
    cases = {case["name"]: case for case in facts["conversations"]}
    assert set(cases) == set(conformance.CONVERSATIONS)
    one = cases["one turn"]
    template = load_template("chatml")
    chat = Conversation((Message("user", "Name a fruit."), Message("assistant", "An apple.")))
    names = token_names(tiny_tokenizer, template)
    ids, labels = encode(render(template, chat, RenderSettings(), names), tiny_tokenizer, template)
    assert one["input_ids"] == ids
    assert one["mask"] == [int(label != IGNORE_INDEX) for label in labels]
    assert one["prompt_ids"] == ids[: labels.index(next(label for label in labels if label != IGNORE_INDEX))]
    assert one["messages"] == [
        {"role": "user", "content": "Name a fruit."},
        {"role": "assistant", "content": "An apple."},
    ]
    assert one["chat_template_agrees"]
    assert facts["stop_tokens"] == ["<|im_end|>", "<|im_start|>"]
    special = cases["special tokens as text"]["input_ids"]
    assert special.count(tiny_tokenizer.convert_tokens_to_ids("<|im_end|>")) == 2  # of the frame, none of the text


def test_a_folder_as_exported_passes(exported: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert verify(str(exported)) == 0
    out = capsys.readouterr().out
    assert "DIFF" not in out
    assert "ok    trained ids: two turns with system text" in out
    assert "|<|im_start|>|u" in out


def break_ids(folder: Path) -> None:
    file = folder / "tokenizer.json"
    fields = json.loads(file.read_text())
    fields["model"]["merges"] = fields["model"]["merges"][:20]
    file.write_text(json.dumps(fields))


def break_stops(folder: Path) -> None:
    file = folder / "generation_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"eos_token_id": [2, 0]}))


def break_chat_template(folder: Path) -> None:
    file = folder / "chat_template.jinja"
    file.write_text(file.read_text().replace("assistant\\n", "model\\n"))


def break_mask(folder: Path) -> None:
    facts = held(folder)
    facts["conversations"][0]["mask"][2] ^= 1
    change(folder, conversations=facts["conversations"])


@pytest.mark.parametrize(
    ("spoil", "expected"),
    [
        (break_ids, "first differing tokens"),
        (break_stops, "DIFF  stop ids"),
        (break_chat_template, "DIFF  chat template: one turn"),
        (break_mask, "is trained in conformance.json, here it is otherwise"),
    ],
)
def test_what_was_changed_since_is_named(
    exported: Path, capsys: pytest.CaptureFixture[str], spoil: Any, expected: str
) -> None:
    spoil(exported)
    assert verify(str(exported)) == 2
    assert expected in capsys.readouterr().out


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("{", "cannot be read: JSONDecodeError"),
        ("{}", "cannot be read: KeyError: 'version'; export the model again"),
        ('{"version": 2, "settings": {}}', "version 2, this Tunesmith reads 1"),
    ],
)
def test_a_damaged_file_is_a_difference(
    exported: Path, capsys: pytest.CaptureFixture[str], text: str, expected: str
) -> None:
    (exported / FILE).write_text(text)
    if expected.startswith("version"):
        change(exported, settings={"today": str(date.today())})
    assert verify(str(exported)) == 2
    assert expected in capsys.readouterr().out


def test_a_folder_without_it_passes_and_says_so(exported: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (exported / FILE).unlink()
    assert verify(str(exported)) == 0
    assert "there is none; tunesmith export writes one" in capsys.readouterr().out


def test_what_a_template_refuses_is_written_with_the_reason(tmp_path: Path, tiny_tokenizer: Any) -> None:
    template = load_template("gemma")
    write_conformance(tmp_path, tiny_tokenizer, load_template("chatml"), RenderSettings(), (2,))
    (finding,) = [
        item for item in check_conformance(tmp_path, tiny_tokenizer, template) if item.label.endswith("one turn")
    ]
    assert not finding.agrees
    with pytest.raises(ExportError, match="the written tokenizer gives other tokens than were trained"):
        prove(tmp_path, tiny_tokenizer, template)
    monkey = conformance.CONVERSATIONS["tools"]
    broken = Conversation((monkey.messages[0], monkey.messages[0], monkey.messages[-1]))
    facts = conformance._facts(broken, tiny_tokenizer, load_template("chatml"), RenderSettings())
    assert set(facts) == {"refused"}


def test_the_date_of_a_template_is_kept(tmp_path: Path, tiny_tokenizer: Any) -> None:
    template = load_template("llama3")
    write_conformance(tmp_path, tiny_tokenizer, template, RenderSettings(today=date(2024, 7, 26)), (2,))
    assert "26 Jul 2024" in tiny_tokenizer.decode(held(tmp_path)["conversations"][-1]["input_ids"])
    assert all(item.agrees for item in check_conformance(tmp_path, tiny_tokenizer, template))
