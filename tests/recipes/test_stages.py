"""Stages through the recipes on a tiny model: files, logs, plots, references, scores, an exported reward model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from tests.conftest import make_tiny_llama, make_tiny_tokenizer

from tunesmith.cli.main import main
from tunesmith.config.result import with_result
from tunesmith.config.schema import RunConfig
from tunesmith.core.errors import ModelError
from tunesmith.models.load import load_model
from tunesmith.models.tokenizer import load_tokenizer
from tunesmith.models.value_head import score_sequences, value_head_of
from tunesmith.recipes import export, train
from tunesmith.training import alarms

PAIRS = [{"prompt": f"say {n}", "chosen": "the fox " * (n % 3 + 1), "rejected": "a dog"} for n in range(9)]
MARKS = [{"prompt": f"say {n}", "completion": f"the fox {n}", "label": n % 2 == 0} for n in range(9)]


@pytest.fixture
def settings(tmp_path: Path, tiny_model_dir: str, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    monkeypatch.setenv("TUNESMITH_HOME", str(tmp_path / "home"))
    (tmp_path / "pairs.json").write_text(json.dumps(PAIRS))
    (tmp_path / "marks.json").write_text(json.dumps(MARKS))
    return {
        "model_name_or_path": tiny_model_dir,
        "template": "chatml",
        "dataset": str(tmp_path / "pairs.json"),
        "output_dir": str(tmp_path / "out"),
        "stage": "dpo",
        "do_train": True,
        "use_cpu": True,
        "cutoff_len": 48,
        "val_size": 3,
        "eval_strategy": "steps",
        "eval_steps": 2,
        "per_device_train_batch_size": 3,
        "max_steps": 2,
        "save_steps": 2,
        "logging_steps": 1,
        "learning_rate": 1e-2,
    }


def run(settings: dict[str, Any], **keys: Any) -> tuple[Path, list[dict[str, Any]]]:
    config = RunConfig.from_dict(settings | keys)
    train.run(config)
    folder = Path(str(config.output_dir))
    lines = (folder / "trainer_log.jsonl").read_text().splitlines()
    return folder, [json.loads(line) for line in lines]


def test_dpo_writes_what_users_read(settings: dict[str, Any]) -> None:
    folder, log = run(settings, plot_loss=True)
    first = log[0]
    assert first["loss"] == pytest.approx(0.693147, abs=1e-5)
    names = {"rewards/chosen", "rewards/rejected", "rewards/accuracies", "rewards/margins", "logps/chosen"}
    assert names | {"logps/rejected", "accuracy"} <= first.keys()
    assert first["accuracy"] == first["rewards/accuracies"]
    assert {f"eval_{name}" for name in names} <= log[-1].keys()
    for plot in ("loss", "eval_loss", "rewards_accuracies", "rewards_margins"):
        assert (folder / f"training_{plot}.png").is_file(), plot
    results = json.loads((folder / "all_results.json").read_text())
    assert {"train_loss", "eval_loss", "eval_rewards/accuracies"} <= results.keys()


@pytest.mark.parametrize("keys", [{"ref_model": "tiny"}, {"ref_model_adapters": "out"}])
def test_another_reference_model(settings: dict[str, Any], tmp_path: Path, keys: dict[str, str]) -> None:
    """The same weights as reference change nothing; those of a trained adapter do."""
    plain, log = run(settings)
    named = {"ref_model": settings["model_name_or_path"]} if "ref_model" in keys else {"ref_model_adapters": str(plain)}
    _, other = run(settings, output_dir=str(tmp_path / "other"), **named)
    losses = [[line["loss"] for line in lines if "loss" in line] for lines in (log, other)]
    if "ref_model" in keys:
        assert losses[0] == pytest.approx(losses[1], abs=1e-5)
    else:
        assert losses[0][0] != pytest.approx(losses[1][0], abs=1e-4)


def test_a_reference_with_other_tokens_is_refused(settings: dict[str, Any], tmp_path: Path) -> None:
    """Too few rows for the ids, or ids that mean other tokens."""
    small = tmp_path / "small"
    make_tiny_llama(vocab_size=128).save_pretrained(small)
    make_tiny_tokenizer().save_pretrained(small)
    with pytest.raises(ModelError, match="has 128 tokens, the model in training"):
        run(settings, ref_model=str(small))
    make_tiny_llama().save_pretrained(small)
    words = json.loads((small / "tokenizer.json").read_text())
    vocabulary = words["model"]["vocab"]
    vocabulary["a"], vocabulary["b"] = vocabulary["b"], vocabulary["a"]
    (small / "tokenizer.json").write_text(json.dumps(words))
    with pytest.raises(ModelError, match="has another tokenizer than the model in training"):
        run(settings, ref_model=str(small))


def test_freeze_keeps_its_reference_and_kto_logs_kl(settings: dict[str, Any], tmp_path: Path) -> None:
    keys = {"stage": "kto", "dataset": str(tmp_path / "marks.json"), "finetuning_type": "freeze", "plot_loss": True}
    folder, log = run(settings, **keys)
    assert log[0]["kl"] == pytest.approx(0, abs=1e-4)
    assert log[0]["loss"] == pytest.approx(0.5, abs=1e-4)
    assert any("eval_kl" in line for line in log)
    assert (folder / "training_rewards_chosen.png").is_file()
    assert len([path for path in (tmp_path / "home" / "reference").iterdir() if path.is_dir()]) == 2, "train and eval"


@pytest.mark.parametrize("finetuning_type", ["lora", "full"])
def test_a_reward_model_scores_as_it_was_trained(
    settings: dict[str, Any], tmp_path: Path, finetuning_type: str
) -> None:
    keys = {"stage": "rm", "finetuning_type": finetuning_type, "do_predict": True}
    words = [f"{name}={value}" for name, value in (settings | keys).items()]
    main(["train", *words])
    folder = tmp_path / "out"
    state = load_file(folder / "value_head.safetensors")
    assert {name: tuple(value.shape) for name, value in state.items()} == {
        "v_head.summary.weight": (1, 32),
        "v_head.summary.bias": (1,),
    }
    assert (folder / "checkpoint-2" / "value_head.safetensors").is_file()
    weights = folder / ("adapter_model.safetensors" if finetuning_type == "lora" else "model.safetensors")
    assert not [name for name in load_file(weights) if "v_head" in name or "summary" in name]
    results = json.loads((folder / "all_results.json").read_text())
    assert results["predict_accuracy"] == results["eval_accuracy"]
    assert results["predict_loss"] == pytest.approx(results["eval_loss"], abs=1e-4)
    lines = [json.loads(line) for line in (folder / "generated_predictions.jsonl").read_text().splitlines()]
    assert [line.keys() for line in lines] == [{"chosen", "rejected"}] * 3
    config = with_result(RunConfig.from_dict(settings | keys))
    model = load_model(config, load_tokenizer(config), trainable=False)
    scores = score_sequences(model, [[5, 6, 7], [8, 9]])
    export_to = settings | {"export_dir": str(tmp_path / "merged"), "model_name_or_path": config.model_name_or_path}
    export.run(RunConfig.from_dict(export_to | {"adapter_name_or_path": config.adapter_name_or_path}, command="export"))
    merged = RunConfig.from_dict(settings | keys | {"model_name_or_path": str(tmp_path / "merged")})
    again = load_model(merged, load_tokenizer(merged), trainable=False)
    assert score_sequences(again, [[5, 6, 7], [8, 9]]) == pytest.approx(scores, abs=1e-4)


def test_scores_are_the_head_on_the_last_hidden_state(settings: dict[str, Any]) -> None:
    """By the model's own hidden states, a sequence at a time; a model without a head is refused."""
    run(settings, stage="rm", max_steps=1)
    config = with_result(RunConfig.from_dict(settings | {"stage": "rm"}))
    model: Any = load_model(config, load_tokenizer(config), trainable=False)
    sequences = [[5, 6, 7, 8], [9], list(range(3, 60))]
    head = value_head_of(model)
    assert head is not None
    with torch.no_grad():
        expected = [
            head(model(input_ids=torch.tensor([ids]), output_hidden_states=True).hidden_states[-1][0, -1:]).item()
            for ids in sequences
        ]
    assert score_sequences(model, sequences) == pytest.approx(expected, abs=1e-5)
    bare = RunConfig.from_dict(settings | {"stage": "rm"})
    with pytest.raises(ModelError, match=r"no value_head\.safetensors in"):
        load_model(bare, load_tokenizer(bare), trainable=False)
    with pytest.raises(ModelError, match="no value head"):
        score_sequences(load_model(bare.replace(stage="sft"), load_tokenizer(bare), trainable=False), sequences)


def test_an_alarm_is_an_event_of_the_run(settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(alarms, "checks_of", lambda *_: {"a name": lambda means: f"{means['entries']} entries"})
    folder, _ = run(settings, max_steps=4, val_size=0.0, eval_strategy="no", eval_steps=None)
    events = [json.loads(line) for line in (folder / "events.jsonl").read_text().splitlines()]
    found = [(event["name"], event["step"], event["reason"]) for event in events if event["event"] == "alarm"]
    assert found == [("a name", 3, "3 entries")]
