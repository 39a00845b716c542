"""Which optimizer the keys mean, and what does not go with it."""

from __future__ import annotations

from typing import Any

import pytest

from tunesmith.config.build import Checks, from_entries
from tunesmith.config.entries import Entry
from tunesmith.config.optimizer_rules import optimizer_family, updates_in_backward
from tunesmith.config.schema import RunConfig
from tunesmith.core.errors import ConfigError

BASE = {"model_name_or_path": "m", "dataset": "d", "output_dir": "o", "do_train": True, "finetuning_type": "full"}
GOOD: list[tuple[dict[str, Any], str]] = [
    ({}, "native"),
    ({"optim": "adamw_8bit"}, "native"),
    ({"optim": "sgd", "optim_args": "momentum=0.9"}, "native"),
    ({"use_galore": True}, "galore"),
    ({"use_galore": True, "optim": "adafactor"}, "galore"),
    ({"optim": "galore_adamw", "optim_target_modules": "all-linear", "optim_args": "rank=8"}, "galore"),
    ({"use_apollo": True, "max_grad_norm": 0.5}, "apollo"),
    ({"use_apollo": True, "apollo_proj_type": "left", "apollo_scale_type": "tensor"}, "apollo"),
    ({"use_badam": True, "finetuning_type": "freeze"}, "badam"),
    ({"use_badam": True, "badam_switch_mode": "fixed", "badam_start_block": 0}, "badam"),
    ({"use_adam_mini": True, "finetuning_type": "lora"}, "adam_mini"),
    ({"use_muon": True}, "muon"),
    ({"optim": "lomo", "max_grad_norm": 0}, "lomo"),
    ({"optim": "adalomo"}, "adalomo"),
    ({"optim": "schedule_free_adamw", "optim_args": "r=1"}, "schedule_free"),
    ({"optim": "schedule_free_sgd", "lr_scheduler_type": "constant"}, "schedule_free"),
]
BAD: list[tuple[dict[str, Any], str]] = [
    ({"use_galore": True, "use_muon": True}, "exclude each other"),
    ({"use_galore": True, "optim": "sgd"}, "use_galore goes with optim"),
    ({"use_muon": True, "optim": "lomo"}, "use_muon goes with optim"),
    ({"use_galore": True, "finetuning_type": "lora"}, "full or freeze, not lora"),
    ({"use_badam": True, "finetuning_type": "lora"}, "full or freeze, not lora"),
    ({"optim": "apollo_adamw", "optim_target_modules": "all", "finetuning_type": "lora"}, "full or freeze, not lora"),
    ({"optim": "lomo", "max_grad_norm": 0.5}, "needs all gradients at once"),
    ({"use_apollo": True, "apollo_layerwise": True, "max_grad_norm": 2}, "needs all gradients at once"),
    ({"optim": "schedule_free_adamw", "lr_scheduler_type": "cosine"}, "weigh its average wrongly"),
    ({"optim": "galore_adamw"}, "needs optim_target_modules"),
    ({"use_galore": True, "optim_target_modules": "mlp"}, "galore_target"),
    ({"optim_args": "momentum=0.9"}, "has no setting momentum"),
    ({"optim": "sgd", "optim_args": "momentum"}, "has no value"),
    ({"optim": "rmsprop_bnb", "optim_args": "alpha=0.9"}, "has no setting alpha"),
    ({"use_badam": True, "badam_switch_mode": "fixed"}, "needs badam_start_block"),
    ({"use_badam": True, "badam_switch_interval": 0}, "no number of steps"),
    ({"galore_rank": 8}, "galore_rank does nothing without use_galore"),
    ({"use_galore": True, "apollo_scale": 2}, "apollo_scale does nothing without use_apollo"),
    ({"use_badam": True, "badam_mode": "ratio", "badam_start_block": 1}, "for badam_mode layer, not ratio"),
    ({"use_badam": True, "badam_mask_mode": "scatter"}, "for badam_mode ratio, not layer"),
    ({"use_apollo": True, "apollo_proj_type": "left"}, "projection left goes with a factor for the whole matrix"),
    ({"optim": "apollo_adamw", "optim_target_modules": "all", "optim_args": "proj_type=right"}, "projection right"),
]


def load(keys: dict[str, Any]) -> RunConfig:
    entries = [Entry(name, value) for name, value in {**BASE, **keys}.items()]
    return from_entries(entries, "train", "", checks=Checks(paths=False))


@pytest.mark.parametrize(("keys", "family"), GOOD)
def test_what_goes_together_names_one_family(keys: dict[str, Any], family: str) -> None:
    config = load(keys)
    assert optimizer_family(config) == family
    assert updates_in_backward(config) == (family in ("lomo", "adalomo"))


@pytest.mark.parametrize(("keys", "words"), BAD)
def test_what_does_not_is_refused_with_the_reason(keys: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load(keys)
    (problem,) = caught.value.problems
    assert words in str(problem)


def test_two_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Gradients that are used up in one process are not those of the others."""
    monkeypatch.setenv("WORLD_SIZE", "2")
    load({"use_galore": True})
    for keys in ({"use_badam": True}, {"use_galore": True, "galore_layerwise": True}, {"optim": "lomo"}):
        with pytest.raises(ConfigError, match="works in one process"):
            load(keys)
