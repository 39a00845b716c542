"""A trainer over a tiny model with the optimizer that keys name."""

from __future__ import annotations

import gc
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.conftest import make_tiny_llama

from tunesmith.config.schema import RunConfig
from tunesmith.models import attention
from tunesmith.models.adapters import apply_finetuning
from tunesmith.models.forward import HiddenForward
from tunesmith.objectives.sft import SupervisedObjective
from tunesmith.training.arguments import training_arguments
from tunesmith.training.optimizers.table import optimizer_builder
from tunesmith.training.trainer import StepTrainer

KEYS: dict[str, Any] = {
    "model_name_or_path": "tiny",
    "do_train": True,
    "dataset": "x",
    "finetuning_type": "full",
    "learning_rate": 1e-3,
    "per_device_train_batch_size": 4,
    "max_steps": 8,
    "save_strategy": "no",
    "logging_steps": 1,
    "use_cpu": True,
    "disable_shuffling": True,
}


class Rows:
    """The same eight rows again and again, each with its own tokens."""

    def __init__(self, count: int = 8) -> None:
        rng = random.Random(3)
        self.items = []
        for number in range(count):
            ids = [rng.randrange(3, 400) for _ in range(rng.randrange(8, 24))]
            self.items.append(
                {"input_ids": ids, "labels": [-100, -100, *ids[2:]], "lengths": [len(ids)], "rows": [number]}
            )

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return self.items[index]


def make(folder: Path, *, budget: int = 512, model: Any = None, callbacks: Any = None, **keys: Any) -> StepTrainer:
    config = RunConfig.from_dict({**KEYS, "output_dir": str(folder), **keys})
    attention.register()
    model = model or make_tiny_llama(attn_implementation=attention.VARLEN)
    torch.manual_seed(1)
    model = apply_finetuning(model, config, [], torch.float32)
    trainer = StepTrainer(
        objective=SupervisedObjective(),
        forward=HiddenForward(model),
        token_budget=budget,
        model=model,
        args=training_arguments(config, autocast=None),
        train_dataset=Rows(),
        eval_dataset=Rows(4),
        callbacks=callbacks,
    )
    trainer.make_optimizer = optimizer_builder(config)
    return trainer


@pytest.fixture(scope="session", autouse=True)
def quick_collections() -> Iterator[None]:
    """Each training collects garbage; what the imports made is no garbage and need not be looked through."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.fixture
def make_trainer(tmp_path: Path) -> Callable[..., StepTrainer]:
    """Keys to a trainer; `folder` is beside the others of the test."""

    def build(folder: str = "run", **keys: Any) -> StepTrainer:
        return make(tmp_path / folder, **keys)

    return build
