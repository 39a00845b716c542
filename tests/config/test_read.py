"""Files that are no YAML, no JSON, or no configuration."""

from __future__ import annotations

import pytest

from tunesmith.config.read import plain_value, read_file


@pytest.mark.parametrize(
    ("text", "line", "what", "fix"),
    [
        ("stage: sft\nlora_rank:8\n", 2, "no YAML", "a blank is missing"),
        ("lora_rank:8\n", 1, "key: value", "a blank is missing"),
        ("stage：sft\n", 1, "key: value", "full-width colon"),
        ("stage: sft\n\tlora_rank: 8\n", 2, "no YAML", "not tabs"),
        ("stage: 'sft\n", 1, "no YAML", ""),
        ("a: b: c\n", 1, "no YAML", ""),
        ("- stage\n- sft\n", 1, "key: value", ""),
        ("stage: sft\n---\nstage: sft\n", 2, "no YAML", ""),
        ("stage: *nothing\n", 1, "no YAML", ""),
        ("? [a]\n: 1\n", 1, "plain word", ""),
    ],
)
def test_broken_yaml(write, text: str, line: int, what: str, fix: str) -> None:
    _, problems = read_file(write(text))
    assert what in problems[0].what
    assert problems[0].where.startswith("run.yaml:")
    assert abs(int(problems[0].where.rpartition(":")[2]) - line) <= 1
    assert fix in problems[0].fix


def test_a_key_set_twice(write) -> None:
    entries, problems = read_file(write("stage: sft\nlora_rank: 1\nstage: pt\n"))
    assert str(problems[0]).startswith("run.yaml:3: stage is set twice, here and in line 1")
    assert [entry.key for entry in entries] == ["stage", "lora_rank"]


def test_broken_json_names_its_line(write) -> None:
    _, problems = read_file(write('{\n"stage": "sft",\n}', "run.json"))
    assert problems[0].where in ("run.json:2", "run.json:3")
    assert "no JSON" in problems[0].what


@pytest.mark.parametrize("text", ["", "\n\n", "# only a comment\n", "---\n", "\ufeff"])
def test_an_empty_file_sets_nothing(write, text: str) -> None:
    assert read_file(write(text)) == ([], [])


def test_files_that_are_no_text(write, tmp_path) -> None:
    write("")
    (tmp_path / "b.yaml").write_bytes(b"stage: \xff\xfe")
    assert "UTF-8" in read_file("b.yaml")[1][0].what
    (tmp_path / "d.yaml").mkdir()
    assert "is a folder" in read_file("d.yaml")[1][0].what


def test_values_inside_mappings_are_typed_as_yaml_does(write) -> None:
    text = "x: {a: 1e-4, b: 'no', c: no, d: [1, ~], e: .5, f: 1.5.2, g: -3}\n"
    (entry,), _ = read_file(write(text))
    expected = {"a": 1e-4, "b": "no", "c": False, "d": [1, None], "e": 0.5, "f": "1.5.2", "g": -3}
    assert plain_value(entry.value) == expected
