"""What aids do to a run: the cut of a step changes nothing, evaluation sees none of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from tests.models.tiny import make_tiny_mixtral
from tests.training.test_trainer import Rows, assert_same, make_trainer, weights

from tunesmith.config.schema import RunConfig
from tunesmith.models.dtype import evaluation_dtype


def moe(folder: Path, coefficient: float | None, budget: int = 512, **keys: Any) -> Any:
    settings = {"optim": "sgd", "learning_rate": 0.1, "finetuning_type": "full", "max_steps": 3} | keys
    trainer = make_trainer(
        folder, Rows(24), budget, make_model=make_tiny_mixtral, moe_aux_loss_coef=coefficient, **settings
    )
    trainer.train()
    return trainer


def test_the_balance_of_experts_is_the_same_however_a_step_is_cut(tmp_path: Path) -> None:
    cuts = ((8, 1, 512), (2, 4, 512), (1, 8, 30), (8, 1, 1))
    results = [
        weights(moe(tmp_path, 0.5, budget, per_device_train_batch_size=batch, gradient_accumulation_steps=steps))
        for batch, steps, budget in cuts
    ]
    for other in results[1:]:
        assert_same(results[0], other, atol=1e-6)


def test_the_balance_of_experts_acts_by_its_coefficient(tmp_path: Path) -> None:
    none, zero, half, one = (weights(moe(tmp_path, c, max_steps=1, max_grad_norm=0)) for c in (None, 0.0, 0.5, 1.0))
    assert_same(none, zero, atol=0)
    name = next(name for name in none if "gate.weight" in name)
    moved = [(found[name] - none[name]) for found in (half, one)]
    assert moved[0].abs().max() > 1e-6
    assert torch.allclose(2 * moved[0], moved[1], rtol=1e-2, atol=1e-7)  # one SGD step is linear in the loss


def test_the_balance_is_logged_and_falls_and_stays_out_of_evaluation(tmp_path: Path) -> None:
    trainer = moe(tmp_path, 1.0, max_steps=30)
    logged = [entry["balance_loss"] for entry in trainer.state.log_history if "balance_loss" in entry]
    assert len(logged) == 30
    assert 2.0 <= logged[-1] < logged[0]
    with_balance = trainer.evaluate(Rows(6))["eval_loss"]
    trainer.hidden_forward.aids = type(trainer.hidden_forward.aids)()
    assert trainer.evaluate(Rows(6))["eval_loss"] == with_balance


@pytest.mark.parametrize("keys", [{"neftune_noise_alpha": 5.0}, {"shift_attn": True, "cutoff_len": 16}])
def test_an_aid_changes_training_and_not_evaluation(tmp_path: Path, keys: dict[str, Any]) -> None:
    plain = make_trainer(tmp_path, Rows(8), max_steps=1)
    aided = make_trainer(tmp_path, Rows(8), max_steps=1, **keys)
    assert plain.evaluate(Rows(6))["eval_loss"] == pytest.approx(aided.evaluate(Rows(6))["eval_loss"], abs=1e-7)
    plain.train()
    aided.train()
    losses = [trainer.state.log_history[-2]["loss"] for trainer in (plain, aided)]
    assert losses[0] != losses[1]


def test_transformers_adds_no_noise_of_its_own(tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path, Rows(8), max_steps=1, neftune_noise_alpha=5.0)
    assert trainer.args.neftune_noise_alpha is None


@pytest.mark.parametrize("key", ["bf16_full_eval", "fp16_full_eval"])
def test_evaluation_in_half_precision_is_near_and_leaves_weights_alone(tmp_path: Path, key: str) -> None:
    trainer = make_trainer(tmp_path, Rows(8))
    exact, before = trainer.evaluate(Rows(6))["eval_loss"], weights(trainer)
    trainer.evaluation_dtype = evaluation_dtype(RunConfig.from_dict({key: True}))
    rounded = trainer.evaluate(Rows(6))["eval_loss"]
    assert rounded != exact
    assert rounded == pytest.approx(exact, rel=0.02)
    assert_same(before, weights(trainer), atol=0)
