"""Names to metrics, metrics of form, functions of the user's."""

from __future__ import annotations

from pathlib import Path

import pytest

from tunesmith.config.metrics import CLASSIC, METRICS, OPTIONS
from tunesmith.config.schema import RunConfig
from tunesmith.core.errors import ConfigError, TunesmithError
from tunesmith.evaluation.metrics.base import Options, Sample
from tunesmith.evaluation.metrics.scoreboard import Scoreboard


def test_every_name_gives_the_results_that_the_configuration_promises() -> None:
    options = {"regex": "x"}
    for name, results in METRICS.items():
        assert tuple(Scoreboard([name], options).take([Sample("x", "x")])) == results
    together = Scoreboard(list(METRICS), options).take([Sample("x", "x")])
    assert set(together) == {result for results in METRICS.values() for result in results}


def test_every_option_is_read() -> None:
    assert set(OPTIONS) == set(Options.__slots__)


@pytest.mark.parametrize(
    ("name", "predict", "label", "options", "expected"),
    [
        ("json_valid", ' {"a": 1}\n', "", {}, 1),
        ("json_valid", '{"a": 1} and more', "", {}, 0),
        ("json_valid", "[" * 100_000, "", {}, 0),
        ("json_valid", '{"a": 1}', "", {"json_keys": ["a", "b"]}, 0),
        ("json_valid", '{"a": 1, "b": 2}', "", {"json_keys": ["a", "b"]}, 1),
        ("json_valid", "[1]", "", {"json_keys": ["a"]}, 0),
        ("json_equal", '{"a": 1, "b": [2]}', '{"b":[2],"a":1}', {}, 1),
        ("json_equal", "oh", "oh", {}, 0),
        ("regex_match", "see https://x.org", "", {"regex": r"https?://\S+"}, 1),
        ("regex_match", "see", "", {"regex": r"^\d"}, 0),
        ("number_match", "12 plus 30 is 1,042.", "#### 1042", {}, 1),
        ("number_match", "it is −3.5", "-3.50", {}, 1),
        ("number_match", "version 1.2.3", "none", {}, 0),
        ("number_match", "41", "42", {}, 0),
    ],
)
def test_form_and_facts(name: str, predict: str, label: str, options: dict, expected: int) -> None:
    assert Scoreboard([name], options).take([Sample(predict, label)]) == {name: expected}


FUNCTIONS = """
def shouts(predict, label):
    return predict.isupper()

def lengths(predict, label, prompt):
    return {"chars": len(predict), "words": len(predict.split()) + len(prompt)}

def all_of(predictions, labels):
    return {"distinct": len(set(predictions)) / len(predictions)}

def breaks(predict, label):
    return predict[5]

def nothing(predict, label):
    return None

def odd(first, second):
    return 1
"""


@pytest.fixture
def functions(tmp_path: Path) -> Path:
    file = tmp_path / "my.py"
    file.write_text(FUNCTIONS)
    return file


def test_functions_of_the_users(functions: Path) -> None:
    board = Scoreboard([f"{functions}:shouts", f"{functions}:lengths", f"{functions}:all_of", "exact_match"])
    assert board.add(Sample("HI YOU", "x", "p")) == {"shouts": True, "chars": 6.0, "words": 3.0, "exact_match": False}
    board.add(Sample("hi", "hi", ""))
    assert board.result() == {"shouts": 0.5, "chars": 4.0, "words": 2.0, "distinct": 1.0, "exact_match": 0.5}


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("breaks", "failed: IndexError: string index out of range (line 12 of my.py)"),
        ("nothing", "gave None for nothing; a finite number is wanted"),
        ("odd", "it is to take (predict, label) or (predictions, labels)"),
        ("gone", "has no function gone; it has shouts, lengths"),
    ],
)
def test_functions_that_do_not_do(functions: Path, name: str, words: str) -> None:
    with pytest.raises(TunesmithError) as error:
        Scoreboard([f"{functions}:{name}"]).take([Sample("x", "x")])
    assert words in str(error.value)


def test_a_file_that_cannot_be_run(tmp_path: Path) -> None:
    (tmp_path / "bad.py").write_text("import nothing_of_that_name\n")
    with pytest.raises(TunesmithError, match="cannot be run: ModuleNotFoundError"):
        Scoreboard([f"{tmp_path / 'bad.py'}:f"])
    with pytest.raises(TunesmithError, match="there is no Python file"):
        Scoreboard([f"{tmp_path / 'gone.py'}:f"])


def test_results_of_one_name_are_refused(tmp_path: Path) -> None:
    (tmp_path / "my.py").write_text("def exact_match(predict, label):\n    return 1\n")
    board = Scoreboard(["exact_match", f"{tmp_path / 'my.py'}:exact_match"])
    with pytest.raises(TunesmithError, match="two of them give a result called exact_match"):
        board.take([Sample("x", "x")])


def config(**keys: object) -> RunConfig:
    base = {"stage": "sft", "do_predict": True, "predict_with_generate": True, "dataset": "x", "val_size": 0.1}
    return RunConfig.from_dict({"model_name_or_path": "m", "output_dir": "o", **base, **keys}, "train", rules=True)


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"metrics": "bleu,rogue"}, "did you mean rouge?"),
        ({"metrics": ["gone.py:f"]}, "there is no file gone.py"),
        ({"metrics": ["regex_match"]}, "regex_match needs the option regex"),
        ({"metric_options": {"lables": ["a"]}}, "did you mean labels?"),
        ({"metric_options": {"labels": "a"}}, "labels takes a list, not 'a'"),
        ({"metric_options": {"average": "marco"}}, "choices: macro, micro, weighted, binary"),
        ({"metric_options": {"average": "binary"}}, "needs positive_label"),
        ({"metric_options": {"label_pattern": "("}}, "is no regular expression"),
        ({"metric_options": {"span_pattern": "x"}}, "needs a group (?P<text>...)"),
        ({"metric_options": {"span_format": "pattern"}}, "needs span_pattern"),
        ({"eval_metrics": ["f1"]}, "eval_metrics needs evaluation while training"),
        (
            {"eval_metrics": ["accuracy"], "predict_with_generate": False, "do_predict": False, "do_train": True}
            | {"eval_strategy": "epoch", "compute_accuracy": True},
            "both write eval_accuracy",
        ),
        (
            {"eval_metrics": ["f1"], "do_train": True, "eval_strategy": "epoch", "train_on_prompt": True},
            "cannot tell prompts from answers",
        ),
        (
            {"eval_metrics": ["f1"], "do_train": True, "eval_strategy": "epoch", "metric_for_best_model": "f2"},
            "evaluations compute loss, f1",
        ),
        (
            {"do_train": True, "eval_strategy": "epoch", "metric_for_best_model": "bleu"},
            "; eval_metrics: [bleu] adds it",
        ),
    ],
)
def test_mistakes_are_told_before_anything_is_loaded(tmp_path: Path, monkeypatch, keys: dict, words: str) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "x").mkdir()
    if keys.get("do_train"):
        keys = {"do_train": True, **keys}
    elif "eval_metrics" in keys:
        keys = {**keys, "do_train": True, "eval_strategy": "no"}
    with pytest.raises(ConfigError) as error:
        config(**keys)
    assert words in str(error.value)


def test_choices_that_go_together(tmp_path: Path) -> None:
    (tmp_path / "my.py").write_text("def f(predict, label):\n    return 1\n")
    own = f"{tmp_path / 'my.py'}:f"
    keys = {"do_train": True, "eval_strategy": "epoch", "metric_for_best_model": "anything", "eval_metrics": [own]}
    assert config(**keys).eval_metrics == (own,)
    for name in ("loss", "eval_loss", "eval_f1", "rouge-l"):
        answers = ["f1"] if name == "eval_f1" else []
        config(do_train=True, eval_strategy="epoch", metric_for_best_model=name, eval_metrics=answers)
    assert config().metrics == ()
    assert CLASSIC == ("bleu-4", "rouge-1", "rouge-2", "rouge-l")
