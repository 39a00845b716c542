"""What the states take: worked out from shapes, and counted after a step."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from tests.conftest import make_tiny_llama
from torch import nn

from tunesmith.config.schema import RunConfig
from tunesmith.models import attention
from tunesmith.training.optimizers.memory import measured_bytes, state_bytes
from tunesmith.training.trainer import StepTrainer

CASES: dict[str, dict[str, Any]] = {
    "adamw": {},
    "sgd": {"optim": "sgd"},
    "adafactor": {"optim": "adafactor"},
    "adamw_8bit": {"optim": "adamw_8bit"},
    "lion_8bit": {"optim": "lion_8bit"},
    "galore": {"use_galore": True, "galore_rank": 8},
    "galore-full": {"use_galore": True, "galore_rank": 8, "galore_proj_type": "full"},
    "galore-adafactor": {"use_galore": True, "galore_rank": 8, "optim": "adafactor"},
    "galore-layerwise": {"use_galore": True, "galore_rank": 8, "galore_layerwise": True},
    "apollo": {"use_apollo": True, "apollo_rank": 8},
    "apollo-mini": {"use_apollo": True, "apollo_rank": 1, "apollo_scale_type": "tensor"},
    "badam": {"use_badam": True},
    "badam-ratio": {"use_badam": True, "badam_mode": "ratio"},
    "adam_mini": {"use_adam_mini": True},
    "muon": {"use_muon": True},
    "lomo": {"optim": "lomo"},
    "adalomo": {"optim": "adalomo"},
    "schedule_free": {"optim": "schedule_free_adamw"},
    "schedule_free_sgd": {"optim": "schedule_free_sgd"},
}


@pytest.mark.parametrize("name", CASES)
def test_the_formula_gives_what_a_step_leaves(name: str, make_trainer: Callable[..., StepTrainer]) -> None:
    keys = CASES[name]
    attention.register()
    model: Any = make_tiny_llama(hidden_size=96, intermediate_size=192, attn_implementation=attention.VARLEN)
    config = RunConfig.from_dict({"finetuning_type": "full", **keys})
    foreseen = state_bytes(config, model)
    trainer = make_trainer(model=model, max_steps=1, **keys)
    trainer.train()
    assert measured_bytes(trainer.own_optimizer) == pytest.approx(foreseen, rel=0.02, abs=2000)


def test_one_matrix_of_galore_by_hand() -> None:
    """(192, 96) at rank 8: the gradient becomes (192, 8), two moments of 4 bytes; the projection is (8, 96)."""
    model = nn.ModuleDict({"layer": nn.Linear(96, 192, bias=False)})
    model.get_input_embeddings = model.get_output_embeddings = lambda: None
    config = RunConfig.from_dict({"finetuning_type": "full", "use_galore": True, "galore_rank": 8})
    assert state_bytes(config, model) == 2 * 4 * 192 * 8 + 4 * 8 * 96
    plain = RunConfig.from_dict({"finetuning_type": "full"})
    assert state_bytes(plain, model) == 8 * 192 * 96
