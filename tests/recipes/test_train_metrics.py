"""Scores of generated answers in evaluation while training: what they are, and that training does not notice them."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest

from tunesmith.config.schema import RunConfig
from tunesmith.core.errors import TunesmithError
from tunesmith.recipes.train import run

GREEDY_FUNCTION = """
import random, numpy, torch

def distance(predict, label):
    random.random(), numpy.random.rand(), torch.rand(3)  # a function may draw what it likes
    return abs(len(predict) - len(label))

def rising(predictions, labels, seen=[]):
    return None

count = [0]

def falling(predictions, labels):
    count[0] += 1
    return -count[0]

def breaks(predict, label):
    return 1 / len(predict)
"""
RISING = """
count = [0]

def rising(predictions, labels):
    count[0] += 1
    return count[0]
"""


@pytest.fixture
def configure(tmp_path: Path, tiny_model_dir: str, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("TUNESMITH_HOME", str(tmp_path / "home"))
    (tmp_path / "my.py").write_text(GREEDY_FUNCTION)
    rng = random.Random(0)
    for name, count in (("train", 24), ("held_out", 9)):
        rows = [
            {"instruction": f"who are you {rng.randrange(99)}", "input": "", "output": rng.choice(["a fox", "a dog"])}
            for _ in range(count)
        ]
        (tmp_path / f"{name}.json").write_text(json.dumps(rows))

    def make(name: str, **keys: Any) -> RunConfig:
        settings = {
            "model_name_or_path": tiny_model_dir,
            "stage": "sft",
            "do_train": True,
            "finetuning_type": "lora",
            "lora_dropout": 0.1,
            "template": "chatml",
            "dataset": str(tmp_path / "train.json"),
            "eval_dataset": str(tmp_path / "held_out.json"),
            "output_dir": str(tmp_path / name),
            "cutoff_len": 128,
            "per_device_train_batch_size": 4,
            "per_device_eval_batch_size": 3,
            "learning_rate": 1e-2,
            "max_steps": 6,
            "save_strategy": "no",
            "logging_steps": 1,
            "max_new_tokens": 4,
            "use_cpu": True,
        }
        return RunConfig.from_dict(settings | keys)

    return make


def answered(folder: Path) -> dict[str, list[dict[str, Any]]]:
    return {
        file.stem: [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
        for file in sorted((folder / "eval_answers").iterdir())
    }


def test_training_does_not_notice(tmp_path: Path, configure: Any) -> None:
    """Final weights are the same bytes without evaluation and with answers drawn at random twice on the way."""
    run(configure("off", eval_dataset=None))
    own = f"{tmp_path / 'my.py'}:distance"
    keys = {"eval_strategy": "steps", "eval_steps": 2, "eval_on_start": True, "eval_metrics": ["f1", "rouge", own]}
    run(configure("on", **keys))
    weights = [(tmp_path / name / "adapter_model.safetensors").read_bytes() for name in ("off", "on")]
    assert weights[0] == weights[1]
    found = answered(tmp_path / "on")
    assert list(found) == ["eval-0", "eval-2", "eval-4", "eval-6"]
    assert [len(rows) for rows in found.values()] == [9] * 4
    labels = [row["output"] for row in json.loads((tmp_path / "held_out.json").read_text())]
    assert [row["label"] for row in found["eval-4"]] == labels
    assert all(row["prompt"].endswith("<|im_start|>assistant\n") for row in found["eval-4"])
    results = json.loads((tmp_path / "on" / "all_results.json").read_text())
    assert {"eval_loss", "eval_f1", "eval_rouge1", "eval_rouge2", "eval_rougeL", "eval_distance"} < set(results)
    last = [abs(len(row["predict"]) - len(row["label"])) for row in found["eval-6"]]
    assert results["eval_distance"] == pytest.approx(sum(last) / len(last))


def test_batch_size_changes_no_greedy_answer(tmp_path: Path, configure: Any) -> None:
    keys = {"eval_strategy": "steps", "eval_steps": 3, "eval_metrics": ["exact_match"], "do_sample": False}
    run(configure("three", **keys))
    run(configure("one", per_device_eval_batch_size=1, **keys))
    assert answered(tmp_path / "three") == answered(tmp_path / "one")


def test_predict_with_generate_scores_evaluations_too(tmp_path: Path, configure: Any) -> None:
    keys = {"predict_with_generate": True, "do_sample": False, "eval_strategy": "epoch", "plot_loss": True}
    run(configure("run", **keys))
    results = json.loads((tmp_path / "run" / "eval_results.json").read_text())
    assert {"eval_bleu-4", "eval_rouge-1", "eval_rouge-2", "eval_rouge-l", "eval_loss"} < set(results)
    assert (tmp_path / "run" / "training_eval_rouge-l.png").is_file()
    run(configure("quiet", prediction_loss_only=True, **keys))
    assert "eval_rouge-l" not in json.loads((tmp_path / "quiet" / "eval_results.json").read_text())


def test_each_data_set_has_its_scores(tmp_path: Path, configure: Any) -> None:
    (tmp_path / "other.json").write_text(json.dumps([{"instruction": "what", "input": "", "output": "x"}]))
    names = [str(tmp_path / "held_out.json"), str(tmp_path / "other.json")]
    keys = {"eval_strategy": "epoch", "eval_on_each_dataset": True, "eval_metrics": ["exact_match"]}
    run(configure("run", eval_dataset=names, **keys))
    results = json.loads((tmp_path / "run" / "all_results.json").read_text())
    assert {"eval_held_out_exact_match", "eval_other_exact_match"} < set(results)
    assert {name.rpartition("-")[0]: len(rows) for name, rows in answered(tmp_path / "run").items()} == {
        "eval_held_out": 9,
        "eval_other": 1,
    }


def test_the_best_checkpoint_by_a_metric_of_the_users(tmp_path: Path, configure: Any) -> None:
    """It falls with each evaluation, so the first checkpoint is best; more is better where the name says no loss."""
    keys = {
        "eval_strategy": "steps",
        "eval_steps": 2,
        "save_strategy": "steps",
        "save_steps": 2,
        "eval_metrics": [f"{tmp_path / 'my.py'}:falling"],
        "metric_for_best_model": "falling",
        "load_best_model_at_end": True,
    }
    run(configure("run", **keys))
    best = tmp_path / "run" / "checkpoint-2" / "adapter_model.safetensors"
    assert (tmp_path / "run" / "adapter_model.safetensors").read_bytes() == best.read_bytes()


@pytest.mark.parametrize(("function", "steps"), [("falling", 6), ("rising", 12)])
def test_early_stopping_by_a_metric(tmp_path: Path, configure: Any, function: str, steps: int) -> None:
    """Two evaluations in a row without a better value: at step 6 where it only falls, never where it rises."""
    (tmp_path / "other.py").write_text(RISING)
    file = "my.py" if function == "falling" else "other.py"
    keys = {
        "max_steps": 12,
        "eval_strategy": "steps",
        "eval_steps": 2,
        "eval_metrics": [f"{tmp_path / file}:{function}"],
        "metric_for_best_model": function,
        "early_stopping_steps": 2,
    }
    run(configure("run", **keys))
    state = json.loads((tmp_path / "run" / "trainer_state.json").read_text())
    assert state["global_step"] == steps


def test_a_function_that_fails_on_an_empty_answer_fails_before_training(tmp_path: Path, configure: Any) -> None:
    keys = {"eval_strategy": "epoch", "eval_metrics": [f"{tmp_path / 'my.py'}:breaks"]}
    with pytest.raises(TunesmithError, match="failed: ZeroDivisionError"):
        run(configure("run", **keys))
    assert not list((tmp_path / "run").glob("checkpoint-*"))
    assert not (tmp_path / "run" / "trainer_log.jsonl").exists()
