"""`tunesmith data check` on small sets of every stage."""

from __future__ import annotations

import json

import pytest

from tunesmith.config.schema import RunConfig
from tunesmith.core.errors import DataError
from tunesmith.data.checks.show import lines
from tunesmith.recipes.data import check

LONG = "Ships enter the harbour of Port Ellery at high tide, when the sandbar lies deep enough under water"


def answer(text, asked="who are you"):
    return {"instruction": asked, "output": text}


def shown(result):
    return "\n".join(lines(result))


def test_a_sound_set_is_described(configure):
    result = check(configure([answer("a fox"), answer("a fox"), answer(LONG), answer(LONG + "."), answer("{{name}}")]))
    text = shown(result)
    assert result.problems == []
    assert "read 5, kept 5, rejected 0, truncated 0  (training, alpaca, " in text
    assert "exact duplicates: 1\n    row 2 repeats row 1" in text
    assert "near duplicates: 1\n    row 4 is 9" in text
    assert "tokens | ###" in text
    assert "trained tokens:" in text
    assert "warning: " in text
    assert "placeholders" in text
    assert text.endswith("the data fits stage sft, every row can be used; 1 warning above")


def test_bad_rows_are_problems_and_grouped(configure):
    rows = [answer("a fox"), "{broken", answer(None), answer(None), "[1]"]
    result = check(configure(rows))
    assert "2x output: null where text is expected (rows 3, 4)" in shown(result)
    assert "1x broken JSON (row 2)" in shown(result)
    assert "4 rows cannot be used" in result.problems[-1].what
    (entry,) = result.as_json()["datasets"]
    assert (entry["read"], entry["kept"], entry["rejected"]) == (5, 1, 4)
    assert entry["rejected_by_reason"][0]["rows"] == 2
    assert [place["row"] for place in entry["rejected_by_reason"][0]["first"]] == [3, 4]
    passed = check(configure(rows, skip_bad_rows=True))
    assert passed.problems == []
    assert "rows that are left out" in shown(passed)


def test_an_answer_that_lost_its_end_token_is_counted_and_named(configure):
    result = check(configure([answer("fox"), answer(LONG)], cutoff_len=30))
    assert "1 rows lost an answer's end token" in shown(result)
    (entry,) = result.as_json()["datasets"]
    assert entry["cut_answers"]["rows"] == 1
    assert [place["row"] for place in entry["cut_answers"]["first"]] == [2]
    assert entry["truncated"] == 1
    assert any("lost its end token to cutoff_len (row 2)" in line for line in result.warnings())


def test_the_cache_gives_the_same_report(configure):
    config = configure([answer("fox"), answer(LONG), answer(LONG), answer(None)], cutoff_len=30)
    assert check(config).as_json() == check(config).as_json()


def test_leaks_into_a_set_of_its_own_and_into_held_out_rows(configure, tmp_path):
    other = tmp_path / "eval.jsonl"
    other.write_text("\n".join(json.dumps(answer(text)) for text in (LONG, LONG + "!", "new")))
    result = check(configure([answer(LONG), answer("a fox")], eval_dataset=str(other)))
    counts = {kind: found.count for kind, found in result.leaks.items()}
    assert counts == {"exact": 1, "near": 1, "prompt": 1}
    assert "1 evaluation rows are nearly the same as a training row" in shown(result)
    held_out = check(configure([answer(LONG)] * 10, val_size=3))
    assert (held_out.held_out, held_out.leaks["exact"].count) == (3, 3)
    assert "val_size holds 3 rows out" in shown(held_out)
    assert check(configure([answer(LONG)])).leaks is None


def test_pairs_of_the_preference_stages(configure):
    rows = [{"prompt": f"q{number}", "chosen": LONG, "rejected": "no"} for number in range(12)]
    rows.append({"prompt": "q", "chosen": "same", "rejected": "same"})
    for stage in ("dpo", "rm"):
        result = check(configure(rows, stage=stage))
        assert "pairs: 13; mean answer: " in shown(result)
        warnings = "\n".join(result.warnings())
        assert "the same in 1 (row 13) pairs" in warnings
        assert "chosen answers are the longer ones in 92% of the pairs" in warnings
        (entry,) = result.as_json()["datasets"]
        assert (entry["pairs"]["rows"], entry["pairs"]["chosen_longer"]) == (13, 12)


def test_marks_of_kto_and_plain_text(configure):
    rows = [{"prompt": f"q{number}", "completion": LONG, "label": number > 0} for number in range(6)]
    result = check(configure(rows, stage="kto"))
    assert "labels: 5 good, 1 bad" in shown(result)
    assert "more than 4 to 1" in "\n".join(result.warnings())
    text = check(configure([LONG, "a fox"], name="plain.txt", stage="pt", cutoff_len=20))
    (entry,) = text.as_json()["datasets"]
    assert (entry["kept"], entry["truncated"], entry["trained_share"]) == (2, 0, 1)
    prompts = check(configure([answer("a fox"), {"instruction": "a", "output": 3}], stage="ppo"))
    (entry,) = prompts.as_json()["datasets"]
    assert (entry["kept"], entry["rejected"]) == (1, 1)


@pytest.mark.parametrize(
    ("row", "stage", "missing"),
    [
        (answer("x"), "dpo", "needs a chosen and a rejected answer"),
        (answer("x"), "kto", "needs a column that says whether the answer is good"),
        ({"prompt": "a", "completion": "b", "label": True}, "rm", "use stage kto"),
        ({"prompt": "a", "chosen": "b", "rejected": "c"}, "sft", "use stage dpo or rm"),
        ({"text": "a"}, "sft", "use stage pt"),
    ],
)
def test_what_a_stage_misses_is_said(configure, row, stage, missing):
    with pytest.raises(DataError, match=missing):
        check(configure([row], stage=stage))


def test_the_picture_goes_where_it_is_asked_for(configure, tmp_path):
    rows = [answer("a fox"), answer(LONG)]
    assert check(configure(rows)).picture is None
    check(configure(rows, output_dir=str(tmp_path / "out")))
    assert (tmp_path / "out" / "data_check.png").stat().st_size > 1000
    result = check(configure(rows, output_dir=str(tmp_path / "out")), str(tmp_path / "mine.png"))
    assert result.picture == str(tmp_path / "mine.png")
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="cannot be written"):
        check(configure(rows), str(tmp_path / "file" / "x.png"))


def test_the_object_is_json_and_keeps_its_fields(configure):
    found = json.loads(json.dumps(check(configure([answer("a fox")], val_size=0)).as_json()))
    assert list(found) == [
        "schema",
        "ok",
        "stage",
        "training_not_built",
        "template",
        "cutoff_len",
        "datasets",
        "held_out_rows",
        "leaks",
        "warnings",
        "problems",
        "picture",
    ]
    lengths = found["datasets"][0]["lengths"]
    assert sum(bar["rows"] for bar in lengths["histogram"]) == 1
    assert lengths["longest"]["row"] == 1


def test_without_a_data_set(configure):
    with pytest.raises(DataError, match="no data set is named"):
        check(RunConfig.from_dict({}))
