"""`tunesmith data preview`: what a newcomer sees of the rows."""

from __future__ import annotations

import pytest

from tunesmith.config.schema import RunConfig
from tunesmith.core.errors import DataError
from tunesmith.recipes.preview import preview


def answer(text):
    return {"instruction": "who are you", "output": text}


def test_trained_text_is_marked_and_rejected_rows_are_shown(configure, capsys):
    preview(configure([answer("a fox"), "{broken", answer("a dog"), answer("a cat"), answer("unseen")]))
    shown = capsys.readouterr().out
    assert shown.startswith("⟦...⟧ is trained, the rest is only read\n")
    assert "<|im_start|>user\nwho are you<|im_end|>\n<|im_start|>assistant\n⟦a fox<|im_end|>\n⟧" in shown
    assert "rows.jsonl, row 1: " in shown
    assert "rejected:" in shown
    assert "a cat" in shown
    assert "unseen" not in shown


def test_one_row_with_its_ids(configure, capsys, tiny_tokenizer):
    config = configure([answer("a fox"), answer("a dog"), answer(None)])
    preview(config, 2, ids=True)
    shown = capsys.readouterr().out
    assert "a dog" in shown
    assert "a fox" not in shown
    end = tiny_tokenizer.convert_tokens_to_ids("<|im_end|>")
    table = [line.split() for line in shown.splitlines()]
    assert [str(end), str(end), "'<|im_end|>'"] in [words[1:] for words in table]
    assert [str(end), "'<|im_end|>'"] in [words[1:] for words in table]
    preview(configure([answer("家")], name="other.jsonl"), ids=True)
    shown = capsys.readouterr().out
    assert shown.count("  ...\n") == 2
    assert "  '家'\n" in shown
    with pytest.raises(DataError, match="row 3, column output: null"):
        preview(config, 3)
    with pytest.raises(DataError, match="no data set has a row 9"):
        preview(config, 9)


def test_without_a_usable_row_it_is_an_error(configure):
    with pytest.raises(DataError, match="could be read"):
        preview(configure(["{broken"]))
    with pytest.raises(DataError, match="no data set is named"):
        preview(RunConfig.from_dict({}))


@pytest.mark.parametrize(
    ("stage", "row", "parts"),
    [
        ("dpo", {"prompt": "a", "chosen": "b", "rejected": "c"}, [", chosen: ", "⟦b<", ", rejected: ", "⟦c<"]),
        ("kto", {"prompt": "a", "completion": "b", "label": False}, [", marked bad: ", "⟦b<"]),
        ("pt", {"text": "a fox"}, ["⟦a fox<|im_end|>⟧"]),
        ("ppo", {"prompt": "a", "completion": "b"}, ["⟦b<"]),
    ],
)
def test_rows_of_every_stage(configure, capsys, stage, row, parts):
    preview(configure([row], stage=stage))
    shown = capsys.readouterr().out
    places = [shown.find(part) for part in parts]
    assert -1 not in places
    assert places == sorted(places)


def test_colours_on_a_terminal(configure, capsys, monkeypatch):
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.delenv("NO_COLOR", raising=False)
    preview(configure([answer("a fox [bold]")]))
    shown = capsys.readouterr().out
    assert "\x1b[1;32ma fox [bold]<|im_end|>" in shown
    assert "⟦" not in shown
