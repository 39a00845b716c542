"""Every stage: the cut changes nothing, a resume is exact, the first step is the known limit."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.training.stages import CASES, assert_same, make_stage_trainer, random_rows, weights
from tests.training.test_trainer import StopAt

from tunesmith.core.errors import TrainingError
from tunesmith.models.value_head import value_head_of
from tunesmith.training import kept_reference
from tunesmith.training.kept_reference import ReferencedRows


@pytest.fixture(autouse=True)
def _home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TUNESMITH_HOME", str(tmp_path / "home"))


@pytest.mark.parametrize("name", CASES)
def test_8x1_2x4_and_any_budget_give_the_same_weights(tmp_path: Path, name: str) -> None:
    keys, results, losses = CASES[name], [], []
    for batch, accumulation, budget in ((8, 1, 512), (2, 4, 60), (1, 8, 1)):
        trainer = make_stage_trainer(
            tmp_path,
            random_rows(keys["stage"], 24),
            budget,
            per_device_train_batch_size=batch,
            gradient_accumulation_steps=accumulation,
            optim="sgd",
            lr_scheduler_type="constant",
            max_steps=2,
            **keys,
        )
        trainer.train()
        results.append(weights(trainer))
        losses.append([entry["loss"] for entry in trainer.state.log_history if "loss" in entry])
    before = weights(make_stage_trainer(tmp_path, random_rows(keys["stage"], 8), **keys))
    assert any(not torch.equal(before[name], value) for name, value in results[0].items())
    for other, loss in zip(results[1:], losses[1:], strict=True):
        assert_same(results[0], other, atol=1e-5)
        assert loss == pytest.approx(losses[0], rel=1e-4)


@pytest.mark.parametrize(
    ("name", "finetuning_type"),
    [
        ("pt", "full"),
        ("rm", "lora"),
        ("rm", "full"),
        ("kto_pair", "lora"),
        ("dpo", "full"),
        ("kto", "lora"),
        ("asft", "lora"),
    ],
)
def test_a_resumed_run_ends_bit_for_bit_where_the_whole_one_does(
    tmp_path: Path, name: str, finetuning_type: str
) -> None:
    keys: dict[str, Any] = {
        **CASES[name],
        "finetuning_type": finetuning_type,
        "per_device_train_batch_size": 3,
        "max_steps": 3,
        "learning_rate": 1e-3,
        "lora_dropout": 0.1 if finetuning_type == "lora" else 0.0,
    }
    stage = keys["stage"]
    whole = make_stage_trainer(tmp_path / "whole", random_rows(stage, 9), **keys)
    whole.train()
    folder = tmp_path / "stopped"
    make_stage_trainer(folder, random_rows(stage, 9), callbacks=[StopAt(2)], **keys).train()
    second = make_stage_trainer(folder, random_rows(stage, 9), **keys)
    head = value_head_of(second.model)
    second.train(resume_from_checkpoint=str(folder / "checkpoint-2"))
    assert second.state.global_step == 3
    assert (head is not None) == (folder / "checkpoint-2" / "value_head.safetensors").is_file() == (name == "rm")
    assert second.objective.state() == whole.objective.state()
    for key, value in weights(whole).items():
        assert torch.equal(value, weights(second)[key]), key


@pytest.mark.parametrize("name", ["dpo", "kto", "asft"])
@pytest.mark.parametrize("finetuning_type", ["lora", "full"])
def test_the_first_step_is_that_of_a_policy_equal_to_its_reference(
    tmp_path: Path, name: str, finetuning_type: str
) -> None:
    """log 2 for DPO, weighted halves for KTO, KL 0 for KTO and ASFT."""
    keys = {key: value for key, value in CASES[name].items() if key in ("stage", "use_asft_loss")}
    stage = keys["stage"]
    trainer = make_stage_trainer(tmp_path, random_rows(stage, 8), finetuning_type=finetuning_type, max_steps=1, **keys)
    for parameter_name, parameter in trainer.model.named_parameters():
        if "lora_B" in parameter_name:
            torch.nn.init.zeros_(parameter)
    trainer.train()
    entry = trainer.state.log_history[0]
    if name == "dpo":
        assert entry["loss"] == pytest.approx(math.log(2), abs=1e-5)
        assert entry["rewards/margins"] == pytest.approx(0, abs=1e-4)
    elif name == "kto":
        assert entry["loss"] == pytest.approx(0.5, abs=1e-5)
    if name != "dpo":
        assert entry["kl"] == pytest.approx(0, abs=1e-5)


# -- the reference that is kept on disk ------------------------------------------------------------------------------


class Counting:
    """Counts the rows that a keeper asks the model about."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.rows = 0
        original = kept_reference._Keeper._of_rows

        def counted(keeper: Any, rows: Any) -> Any:
            self.rows += len(rows)
            return original(keeper, rows)

        monkeypatch.setattr(kept_reference._Keeper, "_of_rows", counted)


FULL: dict[str, Any] = {"stage": "dpo", "finetuning_type": "full", "learning_rate": 1e-3, "max_steps": 3}


def test_kept_numbers_are_those_of_a_second_model_and_are_asked_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    counting = Counting(monkeypatch)
    first = make_stage_trainer(tmp_path, random_rows("dpo", 10), **FULL)
    assert isinstance(first.train_dataset, ReferencedRows)
    assert counting.rows == 10
    second = make_stage_trainer(tmp_path, random_rows("dpo", 10), **FULL)
    assert counting.rows == 10, "the second run asks nothing"
    other_model = make_stage_trainer(tmp_path, random_rows("dpo", 10), **FULL)
    other_model.train_dataset = random_rows("dpo", 10)  # without the kept numbers a second model is asked
    for trainer in (first, second, other_model):
        trainer.train()
    assert_same(weights(first), weights(second), atol=0)
    assert_same(weights(first), weights(other_model), atol=1e-5)
    make_stage_trainer(tmp_path, random_rows("dpo", 10, seed=4), **FULL)
    assert counting.rows == 20, "other rows are other numbers"


def test_a_stopped_computation_goes_on_and_a_damaged_one_is_made_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(kept_reference, "SHARD_ITEMS", 4)
    counting = Counting(monkeypatch)
    whole = make_stage_trainer(tmp_path, random_rows("dpo", 10), **FULL)
    (folder,) = (path for path in (tmp_path / "home" / "reference").iterdir() if path.is_dir())
    expected = whole.train_dataset.logps.values.tolist()
    state = json.loads((folder / "state.json").read_text())
    kept = sum(state["counts"][:8])
    import zlib

    crc = zlib.crc32((folder / "logps.bin").read_bytes()[: 4 * kept])
    (folder / "state.json").write_text(json.dumps({"counts": state["counts"][:8], "crc": crc}))
    again = make_stage_trainer(tmp_path, random_rows("dpo", 10), **FULL)
    assert counting.rows == 12
    assert again.train_dataset.logps.values.tolist() == pytest.approx(expected, abs=1e-5)
    values = bytearray((folder / "logps.bin").read_bytes())
    values[5] ^= 0xFF
    (folder / "logps.bin").write_bytes(values)
    make_stage_trainer(tmp_path, random_rows("dpo", 10), **FULL)
    assert counting.rows == 22
    assert "damaged" in caplog.text


def test_numbers_of_another_format_are_not_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    counting = Counting(monkeypatch)
    whole = make_stage_trainer(tmp_path, random_rows("dpo", 10), **FULL)
    whole.args.bf16 = True
    whole.train_dataset = whole.train_dataset.rows_without
    kept_reference.keep_reference(whole)
    assert counting.rows == 20


def test_numbers_that_are_not_finite_stop_the_run_with_the_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = random_rows("dpo", 3)
    trainer = make_stage_trainer(tmp_path, rows, **(FULL | {"pref_loss": "simpo"}))
    with torch.no_grad():
        trainer.model.get_output_embeddings().weight.fill_(float("nan"))
    with pytest.raises(TrainingError, match="no finite log-probability to rows, row 1"):
        kept_reference.keep_reference(trainer)


# -- evaluation ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["rm", "dpo", "kto", "kto_pair", "pt"])
def test_evaluation_does_not_depend_on_its_batches(tmp_path: Path, name: str) -> None:
    stage = CASES[name]["stage"]
    found = []
    for size in (1, 5):
        trainer = make_stage_trainer(
            tmp_path,
            random_rows(stage, 4),
            60,
            random_rows(stage, 9, seed=8),
            per_device_eval_batch_size=size,
            eval_strategy="no",
            **CASES[name],
        )
        metrics = trainer.evaluate()
        found.append(
            {key: value for key, value in metrics.items() if "_per_second" not in key and "runtime" not in key}
        )
    assert found[0] == pytest.approx(found[1], rel=1e-4, abs=1e-5)
    expected = {
        "rm": {"eval_loss", "eval_accuracy", "eval_rewards/margins"},
        "dpo": {"eval_loss", "eval_rewards/accuracies", "eval_logps/chosen", "eval_sft_loss"},
        "kto": {"eval_loss", "eval_kl", "eval_rewards/chosen", "eval_rewards/rejected", "eval_rewards/margins"},
        "kto_pair": {"eval_loss", "eval_rewards/margins"},
        "pt": {"eval_loss", "eval_perplexity"},
    }[name]
    assert expected <= found[0].keys()
    assert not [key for key in found[0] if key.startswith(("_", "eval__"))]


# -- bf16 ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("finetuning_type", ["lora", "full"])
@pytest.mark.parametrize("name", CASES)
def test_in_bf16_loss_and_gradients_stay_near(tmp_path: Path, name: str, finetuning_type: str) -> None:
    keys = CASES[name] | {"finetuning_type": finetuning_type}
    rows = random_rows(keys["stage"], 8)
    losses, gradients = [], []
    for is_half in (False, True):
        trainer = make_stage_trainer(tmp_path, rows, **keys)
        trainer.args.bf16 = is_half
        if is_half:
            for parameter in trainer.model.parameters():
                if not parameter.requires_grad:
                    parameter.data = parameter.data.bfloat16()
        step = trainer.data_collator([trainer.train_dataset[number] for number in range(len(trainer.train_dataset))])
        losses.append(float(trainer.training_step(trainer.model, step)))
        trained = [parameter for parameter in trainer.model.parameters() if parameter.grad is not None]
        assert {parameter.grad.dtype for parameter in trained} == {torch.float32}
        gradients.append(torch.cat([parameter.grad.flatten() for parameter in trained]))
    assert losses[0] != losses[1]
    assert losses[1] == pytest.approx(losses[0], rel=0.02)
    assert torch.cosine_similarity(*gradients, dim=0) > 0.98
