from __future__ import annotations

import json
from pathlib import Path

import pytest

from tunesmith.config import legacy
from tunesmith.config.schema import KEYS
from tunesmith.core import log

NAMES = json.loads((Path(__file__).parent / "data" / "transformers4_names.json").read_text())


def test_every_old_name_of_transformers_is_known() -> None:
    assert len(NAMES) == 29
    assert set(NAMES) <= set(legacy.NAMES)
    assert not set(legacy.NAMES) & set(KEYS)
    assert set(legacy.RENAMED.values()) <= set(KEYS)


@pytest.mark.parametrize(
    ("line", "key", "value"),
    [
        ("evaluation_strategy: epoch\nval_size: 2", "eval_strategy", "epoch"),
        ("no_cuda: true", "use_cpu", True),
        ("per_gpu_train_batch_size: 3", "per_device_train_batch_size", 3),
        ("per_gpu_eval_batch_size: 3", "per_device_eval_batch_size", 3),
        ("group_by_length: true", "train_sampling_strategy", "group_by_length"),
        ("group_by_length: false", "train_sampling_strategy", "random"),
        ("adafactor: true", "optim", "adafactor"),
        ("save_safetensors: true", "save_only_model", False),
        ("use_ipex: false", "use_cpu", False),
        ("evaluation_strategy: epoch\nval_size: 2\neval_strategy: steps", "eval_strategy", "steps"),
    ],
)
def test_old_names_act_with_a_warning(load, capsys, line: str, key: str, value: object) -> None:
    log.setup()
    assert getattr(load(line), key) == value
    error = capsys.readouterr().err
    assert "warning: run.yaml:5: " in error
    assert line.partition(":")[0] in error


def test_old_names_as_flags(load) -> None:
    config = load(
        "", "--no_cuda", "--evaluation_strategy", "steps", "--val_size", "1", "--use_ipex", "--split", "validation"
    )
    assert config.use_cpu
    assert config.eval_strategy == "steps"


def test_warmup_ratio_stays(load) -> None:
    config = load("warmup_ratio: 0.1\n")
    assert (config.warmup_ratio, config.warmup_steps) == (0.1, 0)


def test_a_wrong_value_is_reported_under_its_place(problems) -> None:
    (found,) = problems("evaluation_strategy: stepps")
    assert found.where == "run.yaml:5"
    assert "did you mean steps?" in found.fix
