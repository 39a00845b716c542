"""What every optimizer of the table keeps: it learns, the cut does not matter, a resume is exact, looking is free."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from tunesmith.training.optimizers.table import BUILDERS
from tunesmith.training.trainer import StepTrainer

Make = Callable[..., StepTrainer]

CASES: dict[str, dict[str, Any]] = {
    "galore": {"use_galore": True, "galore_rank": 4, "galore_update_interval": 3},
    "galore-full": {"use_galore": True, "galore_rank": 4, "galore_proj_type": "full", "galore_update_interval": 3},
    "galore-adafactor": {"use_galore": True, "galore_rank": 4, "optim": "adafactor"},
    "galore-layerwise": {"use_galore": True, "galore_rank": 4, "galore_layerwise": True},
    "galore-named": {"optim": "galore_adamw", "optim_target_modules": "mlp", "optim_args": "rank=4,scale=1"},
    "apollo": {"use_apollo": True, "apollo_rank": 4, "apollo_update_interval": 3},
    "apollo-mini": {"use_apollo": True, "apollo_rank": 1, "apollo_scale_type": "tensor", "apollo_proj": "svd"},
    "apollo-layerwise": {"use_apollo": True, "apollo_rank": 4, "apollo_layerwise": True, "apollo_scale_front": True},
    "badam": {"use_badam": True, "badam_switch_interval": 3},
    "badam-random": {"use_badam": True, "badam_switch_interval": 2, "badam_switch_mode": "random"},
    "badam-ratio": {"use_badam": True, "badam_mode": "ratio", "badam_update_ratio": 0.3, "badam_switch_interval": 3},
    "badam-scatter": {
        "use_badam": True,
        "badam_mode": "ratio",
        "badam_mask_mode": "scatter",
        "badam_update_ratio": 0.2,
    },
    "adam_mini": {"use_adam_mini": True},
    "adam_mini-lora": {"use_adam_mini": True, "finetuning_type": "lora"},
    "muon": {"use_muon": True},
    "muon-lora": {"use_muon": True, "finetuning_type": "lora", "learning_rate": 1e-2},
    "lomo": {"optim": "lomo", "learning_rate": 0.05},
    "adalomo": {"optim": "adalomo", "learning_rate": 0.01},
    "schedule_free": {"optim": "schedule_free_adamw", "warmup_steps": 2},
    "schedule_free-radam": {"optim": "schedule_free_radam", "learning_rate": 0.02},
    "schedule_free-sgd": {"optim": "schedule_free_sgd", "learning_rate": 0.1},
    "native": {"optim": "adamw_torch_fused"},
    "native-foreach": {"optim": "adamw_torch"},
    "native-adafactor": {"optim": "adafactor"},
    "native-8bit": {"optim": "adamw_bnb_8bit"},
    "native-paged": {"optim": "paged_adamw_8bit"},
    "native-lion": {"optim": "lion_8bit", "learning_rate": 3e-4},
    "native-sgd": {"optim": "sgd", "optim_args": "momentum=0.9,nesterov=true", "learning_rate": 0.1},
}


def weights(trainer: StepTrainer) -> dict[str, torch.Tensor]:
    return {name: value.detach().clone() for name, value in trainer.model.named_parameters()}


def losses(trainer: StepTrainer) -> list[float]:
    return [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]


def assert_equal(left: dict[str, torch.Tensor], right: dict[str, torch.Tensor]) -> None:
    assert left.keys() == right.keys()
    for name, value in left.items():
        assert torch.equal(value, right[name]), (name, (value - right[name]).abs().max())


def test_every_family_of_the_table_has_a_case() -> None:
    assert {name.partition("-")[0] for name in CASES} == set(BUILDERS)


@pytest.mark.parametrize("name", CASES)
def test_it_learns_and_goes_on_where_it_stopped(name: str, make_trainer: Make) -> None:
    """The loss falls; what is resumed from step 4 of 7 ends with the same bits as the whole run."""
    keys = {**CASES[name], "max_steps": 7}
    whole = make_trainer("run", **{**keys, "save_strategy": "steps", "save_steps": 4})
    before = weights(whole)
    whole.train()
    assert losses(whole)[6] < losses(whole)[0]  # the same rows again
    assert any(not torch.equal(value, before[key]) for key, value in weights(whole).items())
    resumed = make_trainer("run", **keys)
    resumed.train(resume_from_checkpoint=f"{resumed.args.output_dir}/checkpoint-4")
    assert resumed.state.global_step == 7
    assert_equal(weights(whole), weights(resumed))


@pytest.mark.parametrize("name", ["galore", "apollo-layerwise", "badam", "badam-ratio", "muon", "lomo", "adalomo"])
def test_the_cut_into_micro_batches_does_not_matter(name: str, make_trainer: Make) -> None:
    """One micro-batch a step, or one row each: the weights differ by rounding only."""
    keys = {**CASES[name], "max_steps": 2, "learning_rate": 1e-3}
    one, many = make_trainer("one", **keys), make_trainer("many", budget=1, **keys)
    one.train()
    many.train()
    for key, value in weights(one).items():
        assert torch.allclose(value, weights(many)[key], atol=2e-4), key


@pytest.mark.parametrize("name", ["schedule_free", "schedule_free-radam", "badam", "galore-layerwise"])
def test_looking_and_saving_leave_no_trace(name: str, make_trainer: Make) -> None:
    plain = make_trainer("plain", **CASES[name])
    plain.train()
    often = {"eval_strategy": "steps", "eval_steps": 1, "save_strategy": "steps", "save_steps": 2}
    watched = make_trainer("watched", **{**CASES[name], **often})
    watched.train()
    assert_equal(weights(plain), weights(watched))
