"""`tunesmith data preview | check` on a small set, with a tokenizer made here."""

from __future__ import annotations

import json

import pytest

from tunesmith.config.schema import RunConfig
from tunesmith.core.errors import DataError
from tunesmith.data.template import load_template
from tunesmith.models import tokenizer as loading
from tunesmith.recipes.data import check, preview


@pytest.fixture
def configure(tmp_path, monkeypatch, tiny_tokenizer):
    monkeypatch.setenv("TUNESMITH_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(loading, "load_tokenizer", lambda config: tiny_tokenizer)
    monkeypatch.setattr(loading, "load_template_for", lambda config, tokenizer: load_template("chatml"))

    def make(rows, **keys):
        path = tmp_path / "rows.jsonl"
        path.write_text("\n".join(row if isinstance(row, str) else json.dumps(row) for row in rows))
        return RunConfig.from_dict({"dataset": str(path), **keys})

    return make


def answer(text):
    return {"instruction": "who are you", "output": text}


def test_preview_marks_trained_text_and_shows_rejected_rows(configure, capsys):
    preview(configure([answer("a fox"), "{broken", answer("a dog"), answer("a cat"), answer("unseen")]))
    shown = capsys.readouterr().out
    assert "<|im_start|>user\nwho are you<|im_end|>\n<|im_start|>assistant\n⟦a fox<|im_end|>\n⟧" in shown
    assert "rows.jsonl, row 1: " in shown
    assert "rejected:" in shown
    assert "a cat" in shown
    assert "unseen" not in shown


def test_preview_without_a_usable_row_is_an_error(configure):
    with pytest.raises(DataError, match="could be read"):
        preview(configure(["{broken"]))
    with pytest.raises(DataError, match="no data set is named"):
        preview(RunConfig.from_dict({}))


def test_check_prints_everything_and_then_stops_on_bad_rows(configure, capsys):
    rows = [answer("a fox"), answer("a fox"), answer("a dog {{name}}")]
    check(configure(rows))
    shown = capsys.readouterr().out
    assert "read 3, kept 3, rejected 0, truncated 0" in shown
    assert "exact duplicates: 1" in shown
    assert "tokens | ###" in shown
    assert "trained tokens:" in shown
    assert "training example:" in shown
    assert "placeholders" in shown
    with pytest.raises(DataError, match="1 rows cannot be used"):
        check(configure([*rows, "{broken"]))
    assert "read 4, kept 3, rejected 1, truncated 0" in capsys.readouterr().out
