"""LoRA+: which weight learns how fast, as peft has it, and that it is so in a step."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from tests.conftest import make_tiny_llama

from tunesmith.models import attention
from tunesmith.training.trainer import StepTrainer

Make = Callable[..., StepTrainer]
LORA = {"finetuning_type": "lora", "lora_rank": 4, "lora_target": "q_proj,v_proj,embed_tokens"}
RATIO, RATE, EMBEDDING = 8.0, 1e-2, 3e-4


def untied() -> Any:
    attention.register()
    return make_tiny_llama(tie_word_embeddings=False, attn_implementation=attention.VARLEN)


def rates(trainer: StepTrainer) -> dict[str, tuple[float, float]]:
    """Name -> learning rate and weight decay."""
    names = {id(weight): name for name, weight in trainer.model.named_parameters()}
    return {
        names[id(weight)]: (group["lr"], group["weight_decay"])
        for group in trainer.create_optimizer().param_groups
        for weight in group["params"]
    }


@pytest.mark.parametrize("keys", [{}, {"use_dora": True, "lora_target": "q_proj"}, {"additional_target": "norm"}])
def test_every_weight_learns_as_fast_as_in_peft(make_trainer: Make, keys: dict[str, Any]) -> None:
    from peft.optimizers import create_loraplus_optimizer

    settings = LORA | {"learning_rate": RATE, "weight_decay": 0.1} | keys
    trainer = make_trainer(**settings, model=untied(), loraplus_lr_ratio=RATIO, loraplus_lr_embedding=EMBEDDING)
    found = rates(trainer)
    theirs = create_loraplus_optimizer(
        trainer.model, torch.optim.AdamW, lr=RATE, loraplus_lr_ratio=RATIO, loraplus_lr_embedding=EMBEDDING
    )
    names = {id(weight): name for name, weight in trainer.model.named_parameters()}
    expected = {names[id(w)]: group["lr"] for group in theirs.param_groups for w in group["params"]}
    for name, (rate, _) in found.items():
        # peft takes both matrices on an embedding for B; LoRA+ and LLaMA-Factory give them a rate of their own.
        assert rate == (EMBEDDING if "lora_embedding" in name else expected[name]), name
    assert {name for name, p in trainer.model.named_parameters() if p.requires_grad} == set(found)
    plain = rates(make_trainer(**settings, model=untied()))
    assert {name: decay for name, (_, decay) in found.items()} == {name: decay for name, (_, decay) in plain.items()}


def test_b_moves_by_the_ratio_and_a_as_before(make_trainer: Make) -> None:
    """SGD moves a weight by rate times gradient; both runs begin with the same gradients."""
    moved = []
    for keys in ({}, {"loraplus_lr_ratio": RATIO}):
        settings = LORA | {"lora_target": "q_proj,v_proj", "learning_rate": RATE, "max_steps": 1}
        trainer = make_trainer(**settings, optim="sgd", lr_scheduler_type="constant", max_grad_norm=0, **keys)
        for name, weight in trainer.model.named_parameters():
            if "lora_B" in name:
                torch.nn.init.constant_(weight, 0.01)
        before = {name: weight.detach().clone() for name, weight in trainer.model.named_parameters()}
        trainer.train()
        moved.append({name: (p.detach() - before[name]) for name, p in trainer.model.named_parameters()})
    for name, change in moved[0].items():
        factor = RATIO if "lora_B" in name else 1.0
        assert torch.allclose(moved[1][name], factor * change, rtol=1e-3, atol=1e-7), name
    assert max(float(change.abs().max()) for change in moved[0].values()) > 0


def test_the_schedule_scales_all_rates_and_the_log_shows_the_plain_one(make_trainer: Make) -> None:
    schedule = {"learning_rate": RATE, "lr_scheduler_type": "linear", "max_steps": 4}
    trainer = make_trainer(**LORA, **schedule, loraplus_lr_ratio=RATIO, model=untied())
    trainer.train()
    logged = [entry["learning_rate"] for entry in trainer.state.log_history if "learning_rate" in entry]
    assert logged == pytest.approx([RATE, 0.75 * RATE, 0.5 * RATE, 0.25 * RATE])
    lrs = {group["lr"] / group["initial_lr"] for group in trainer.optimizer.param_groups}
    assert lrs == {0.0}
