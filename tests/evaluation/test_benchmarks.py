"""Benchmarks out of folders in users' layouts, out of a hub repository, and what is wrong with broken ones."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.evaluation.small_benchmarks import MMLU, as_csv, rows, write_ceval, write_cmmlu, write_mmlu

from tunesmith.config.schema import RunConfig
from tunesmith.core.errors import DataError
from tunesmith.evaluation.benchmarks import HUBS, known_subjects, load_benchmark
from tunesmith.evaluation.folder import parse_questions
from tunesmith.evaluation.question import CATEGORIES


def config(root: Path, **keys: object) -> RunConfig:
    return RunConfig.from_dict({"model_name_or_path": "m", "task_dir": str(root), **keys}, command="eval")


@pytest.mark.parametrize("zipped", [True, False])
def test_mmlu(tmp_path: Path, zipped: bool) -> None:
    write_mmlu(tmp_path, "ABCDA", zipped)
    for split in ("test", "validation"):
        subjects = load_benchmark(config(tmp_path), "mmlu", split)
        assert [(s.name, s.title, s.category) for s in subjects] == [
            (name, about["name"], about["category"]) for name, about in MMLU.items()
        ]
        assert [[q.answer for q in s.questions] for s in subjects] == [[0, 1, 2, 3, 0]] * 3
        assert [[q.answer for q in s.examples] for s in subjects] == [[0, 1, 2, 3, 1]] * 3
    first = subjects[0].questions[1]
    assert first.text == "pond_life val question 1 indeed?"
    assert first.choices == ("thing 1w", "thing 1x", "thing 1y", "thing 1z")


def test_ceval_has_a_header_and_no_answers_in_its_test_split(tmp_path: Path) -> None:
    write_ceval(tmp_path)
    known = load_benchmark(config(tmp_path), "ceval", "validation")
    assert [s.title for s in known] == ["池塘生物", "茶的历史", "风筝制作"]
    assert [q.answer for q in known[0].questions] == [1, 1, 0, 3]
    hidden = load_benchmark(config(tmp_path), "ceval", "test")
    assert [q.answer for q in hidden[2].questions] == [None] * 3
    assert len(hidden[2].examples) == 5


def test_cmmlu(tmp_path: Path) -> None:
    write_cmmlu(tmp_path)
    subjects = load_benchmark(config(tmp_path), "cmmlu", "test")
    assert [q.answer for q in subjects[1].questions] == [0, 1, 2, 3, 0, 1]
    assert [q.answer for q in subjects[1].examples] == [3, 2, 1, 0, 3]
    assert subjects[1].questions[0].text == "tea_history test question 0?"


def test_a_folder_of_ones_own_needs_no_mapping(tmp_path: Path) -> None:
    folder = tmp_path / "village" / "test"
    folder.mkdir(parents=True)
    (folder / "bread_baking.csv").write_text(as_csv([row[:3] + row[-1:] for row in rows("bread", "test", "AB")]))
    (subject,) = load_benchmark(config(tmp_path), "village", "test")
    assert (subject.name, subject.title, subject.category) == ("bread_baking", "bread baking", "Other")
    assert subject.questions[1].choices == ("thing 1w", "thing 1x")
    assert subject.examples == ()


def test_known_subjects_are_counted_as_published() -> None:
    counts = {name: len(known_subjects(name)) for name in HUBS}
    assert counts == {"mmlu": 57, "ceval": 52, "cmmlu": 67}
    for name in HUBS:
        assert {category for _, category in known_subjects(name).values()} == set(CATEGORIES)


def test_subjects_that_are_not_there_are_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = write_mmlu(tmp_path, zipped=False)
    (folder / "data" / "test" / "pond_life_test.csv").unlink()
    subjects = load_benchmark(config(tmp_path), "mmlu", "test")
    assert [s.name for s in subjects] == ["tea_history", "village_council"]
    assert "holds 2 of 3 subjects" in caplog.text


def test_the_hub_has_the_same_questions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A repository on disk stands for the hub's: a choices column in one, columns A to D in the other."""
    import pyarrow
    import pyarrow.parquet

    monkeypatch.setenv("TUNESMITH_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    repos = {"mmlu": tmp_path / "repo-mmlu", "ceval": tmp_path / "repo-ceval"}
    table = rows("x", "test", "AD")
    as_list = [
        {"question": r[0], "choices": r[1:5], "answer": "ABCD".index(r[5]), "subject": "astronomy"} for r in table
    ]
    as_columns = [dict(zip(("question", *"ABCD", "answer"), r, strict=True)) for r in table]
    for name, found in (("mmlu", as_list), ("ceval", as_columns)):
        folder = repos[name] / "astronomy"
        folder.mkdir(parents=True)
        splits = {split: f"astronomy/{split}.parquet" for split in set(HUBS[name][1].values())}
        for file in splits.values():
            pyarrow.parquet.write_table(pyarrow.Table.from_pylist(found), repos[name] / file)
        lines = "\n".join(f"      - split: {split}\n        path: {file}" for split, file in splits.items())
        (repos[name] / "README.md").write_text(
            f"---\nconfigs:\n  - config_name: astronomy\n    data_files:\n{lines}\n---\n", encoding="utf-8"
        )
        monkeypatch.setitem(HUBS, name, (str(repos[name]), HUBS[name][1]))
    monkeypatch.setattr(
        "tunesmith.evaluation.benchmarks.known_subjects", lambda name: {"astronomy": ("astronomy", "STEM")}
    )
    keys = {"cache_dir": str(tmp_path / "cache"), "download_mode": "force_redownload"}
    for name in repos:
        (subject,) = load_benchmark(config(tmp_path / "none", **keys), name, "test")
        assert [q.answer for q in subject.questions] == [0, 3]
        assert subject.questions[0].choices == ("thing 0w", "thing 0x", "thing 0y", "thing 0z")
        assert len(subject.examples) == 2


def test_without_hub_and_folder_both_ways_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    monkeypatch.setitem(HUBS, "mmlu", (str(tmp_path / "gone" / "there" / "is" / "none"), HUBS["mmlu"][1]))
    with pytest.raises(DataError) as error:
        load_benchmark(config(tmp_path / "none"), "mmlu", "test")
    assert "cannot be loaded from the hub" in str(error.value)
    assert str(tmp_path / "none" / "mmlu") in str(error.value)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("q,a,b,c,d,E\n", "the answer is 'E', not one of ABCD"),
        ("question,A,B,answer\nwhat,1,2\n", "row 2: the row has 3 cells, the first one 4"),
        ("question,A,answer\nwhat,1,A\n", "a question needs a text and the choices"),
        ("\n", "holds no questions"),
    ],
)
def test_broken_rows_are_named(text: str, words: str) -> None:
    with pytest.raises(DataError, match=r"file\.csv") as error:
        list(parse_questions(text, "file.csv"))
    assert words in str(error.value)


def test_a_split_that_is_not_there_names_what_is(tmp_path: Path) -> None:
    write_mmlu(tmp_path)
    (tmp_path / "mmlu" / "mapping.json").write_text('{"other": {"name": "o", "category": "Other"}}')
    with pytest.raises(DataError, match="pond_life, tea_history, village_council"):
        load_benchmark(config(tmp_path), "mmlu", "test")
    (tmp_path / "mmlu" / "mapping.json").write_text('{"other": 3}')
    with pytest.raises(DataError, match="mapping of subjects"):
        load_benchmark(config(tmp_path), "mmlu", "test")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="holds no questions"):
        load_benchmark(config(tmp_path), "empty", "test")
