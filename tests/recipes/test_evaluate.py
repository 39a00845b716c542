"""`tunesmith eval` on a tiny model: from the command line to the files."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from tests.evaluation.small_benchmarks import write_mmlu

from tunesmith.cli.main import main


def words(root: Path, model: str, *more: str) -> list[str]:
    keys = {"model_name_or_path": model, "template": "fewshot", "task": "mmlu_test", "task_dir": str(root), "n_shot": 1}
    return ["eval", *(f"{name}={value}" for name, value in keys.items()), *more]


def test_from_the_command_line_to_the_files(tmp_path: Path, tiny_model_dir: str, capsys) -> None:
    write_mmlu(tmp_path)
    out = tmp_path / "out"
    assert main(words(tmp_path, tiny_model_dir, f"save_dir={out}", "n_shot=1")) == 0
    shown = capsys.readouterr().out
    assert [line.split(":")[0].strip() for line in shown.splitlines()] == [
        "Average",
        "STEM",
        "Social Sciences",
        "Humanities",
    ]
    assert {path.name for path in out.iterdir()} == {
        "results.json",
        "results.log",
        "summary.json",
        "questions.jsonl",
        "questions.state.json",
        "questions.parquet",
        "eval_args.yaml",
        "events.jsonl",
        ".run.lock",
    }
    assert yaml.safe_load((out / "eval_args.yaml").read_text())["task"] == "mmlu_test"
    assert json.loads((out / "summary.json").read_text())["n_shot"] == 1
    before = (out / "results.json").read_bytes()
    assert main(["eval", str(out / "eval_args.yaml")]) == 0
    assert (out / "results.json").read_bytes() == before
    assert main(words(tmp_path, tiny_model_dir, f"save_dir={out}", "n_shot=0")) == 2
    assert "holds results of another" in capsys.readouterr().err


def test_without_a_folder_results_are_shown(tmp_path: Path, tiny_model_dir: str, capsys) -> None:
    write_mmlu(tmp_path)
    assert main(words(tmp_path, tiny_model_dir, "task=mmlu", "split=validation", "template=chatml")) == 0
    shown = capsys.readouterr()
    assert "Average" in shown.out
    assert "set save_dir" in shown.err
    assert main(words(tmp_path, tiny_model_dir, "split=validation")) == 0
    assert "split: validation is ignored: the task is called mmlu_test" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["task=null"], "task is missing"),
        (["task=mmul_test"], "did you mean mmlu_test?"),
        (["task=cmmlu_validation"], "cmmlu has no split validation"),
        (["task=gone.yaml"], "there is no file gone.yaml"),
        (["task=lm_eval:"], "followed by no name"),
    ],
)
def test_tasks_that_are_not_there(tmp_path: Path, tiny_model_dir: str, capsys, more: list[str], message: str) -> None:
    assert main(words(tmp_path, tiny_model_dir, *more)) == 2
    assert message in capsys.readouterr().err
