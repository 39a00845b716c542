"""What a run has trained, as keys for chat, evaluation and export."""

from __future__ import annotations

from pathlib import Path

import pytest

from tunesmith.config.schema import RunConfig
from tunesmith.core.errors import ModelError, TunesmithError
from tunesmith.recipes.trained import trained_keys


def make_run(folder: Path, weights: str, **keys: object) -> Path:
    settings = {"model_name_or_path": "org/base", "template": "qwen", "dataset": "identity", "do_train": True}
    config = RunConfig.from_dict({**settings, "output_dir": str(folder), "learning_rate": 1e-4, **keys})
    (folder / "checkpoint-4").mkdir(parents=True)
    (folder / "training_args.yaml").write_text(config.to_yaml())
    (folder / "checkpoint-4" / weights).touch()
    return folder


def test_an_adapter_and_its_checkpoints(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", "adapter_model.safetensors", trust_remote_code=True)
    with pytest.raises(ModelError, match=r"holds no weights: it has checkpoint-4: choose"):
        trained_keys(run)
    (run / "adapter_model.safetensors").touch()
    keys = trained_keys(run)
    assert keys.pop("adapter_name_or_path") == [str(run)]
    assert keys == {"model_name_or_path": "org/base", "template": "qwen", "trust_remote_code": True}
    assert trained_keys(run / "checkpoint-4")["adapter_name_or_path"] == [str(run / "checkpoint-4")]
    RunConfig.from_dict(keys, command="chat", rules=True)


def test_a_whole_model(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", "model.safetensors", finetuning_type="full")
    keys = trained_keys(run / "checkpoint-4")
    assert keys["model_name_or_path"] == str(run / "checkpoint-4")
    assert keys["adapter_name_or_path"] == []


def test_what_is_below_the_adapter_comes_along(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", "adapter_model.safetensors", adapter_name_or_path="first", create_new_adapter=True)
    assert trained_keys(run / "checkpoint-4")["adapter_name_or_path"] == ["first", str(run / "checkpoint-4")]


def test_no_run(tmp_path: Path) -> None:
    with pytest.raises(TunesmithError, match="holds no configuration"):
        trained_keys(tmp_path)
