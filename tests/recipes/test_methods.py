"""The life of every tuning method on a tiny model: train, resume to the same bytes, load, export, verified."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from tests.models.tiny import IDS, logits
from transformers import AutoModelForCausalLM

from tunesmith.config.result import with_result
from tunesmith.config.schema import RunConfig
from tunesmith.core.errors import ExportError, ModelError
from tunesmith.inference.engine import GenerationRequest, SamplingParams
from tunesmith.inference.opening import open_model
from tunesmith.models.load import load_model
from tunesmith.models.tokenizer import load_tokenizer
from tunesmith.recipes import export, train

METHODS: dict[str, dict[str, Any]] = {
    "lora": {},
    "rslora": {"use_rslora": True},
    "dora": {"use_dora": True},
    "whole embedding": {"lora_target": "q_proj", "additional_target": "embed_tokens"},
    "new tokens": {"add_tokens": "<n>,<m>"},
    "lora+": {"loraplus_lr_ratio": 8},
    "pattern": {"lora_target": [r"model\.layers\.1\..*_proj"]},
    "pissa": {"pissa_init": True},
    "pissa converted": {"pissa_init": True, "pissa_convert": True, "pissa_iter": -1},
    "loftq": {"quantization_bit": 4, "loftq_init": True},
    "qoft": {"finetuning_type": "oft", "oft_block_size": 8, "quantization_bit": 4},
    "oft": {"finetuning_type": "oft", "oft_block_size": 8, "module_dropout": 0.2},
    "lora, yarn": {"rope_scaling": "yarn", "cutoff_len": 600},
    "full, llama3": {"finetuning_type": "full", "rope_scaling": "llama3", "cutoff_len": 600},
    "freeze": {"finetuning_type": "freeze", "freeze_trainable_layers": 1},
    "full": {"finetuning_type": "full"},
}


@pytest.fixture
def settings(tmp_path: Path, tiny_model_dir: str, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    monkeypatch.setenv("TUNESMITH_HOME", str(tmp_path / "home"))
    rows = [{"instruction": f"say {n}", "input": "", "output": f"the fox says {n} " * (n % 3 + 1)} for n in range(8)]
    (tmp_path / "rows.json").write_text(json.dumps(rows))
    return {
        "model_name_or_path": tiny_model_dir,
        "template": "chatml",
        "dataset": str(tmp_path / "rows.json"),
        "do_train": True,
        "use_cpu": True,
        "cutoff_len": 64,
        "per_device_train_batch_size": 2,
        "max_steps": 4,
        "save_steps": 2,
        "logging_steps": 1,
        "learning_rate": 1e-2,
    }


def weights(folder: Path) -> dict[str, torch.Tensor]:
    name = "adapter_model.safetensors" if (folder / "adapter_config.json").is_file() else "model.safetensors"
    return load_file(folder / name)


def run(settings: dict[str, Any], folder: Path, **keys: Any) -> RunConfig:
    config = RunConfig.from_dict(settings | {"output_dir": str(folder)} | keys, rules=True)
    train.run(config)
    return config


def live(config: RunConfig) -> torch.Tensor:
    """Logits of what was trained, loaded as chat loads it."""
    config = with_result(config)
    return logits(load_model(config, load_tokenizer(config), trainable=False))


@pytest.mark.parametrize("method", METHODS)
def test_a_method_lives(settings: dict[str, Any], tmp_path: Path, method: str) -> None:
    keys = METHODS[method]
    whole = run(settings, tmp_path / "whole", **keys)
    trained = live(whole)
    base = AutoModelForCausalLM.from_pretrained(settings["model_name_or_path"])
    assert (trained - logits(base)).abs().max() > 1e-3

    stopped = tmp_path / "stopped"
    shutil.copytree(tmp_path / "whole" / "checkpoint-2", stopped / "checkpoint-2")
    run(settings, stopped, **keys)
    first, second = weights(tmp_path / "whole"), weights(stopped)
    assert first.keys() == second.keys()
    assert all(torch.equal(value, second[name]) for name, value in first.items())

    out = with_result(whole).replace(export_dir=str(tmp_path / "out"), infer_dtype="float32")
    export.run(dataclasses.replace(out, command="export"))
    if "finetuning_type" not in keys and "additional_target" not in keys:
        assert not [name for name in first if name.endswith(("embed_tokens.weight", "lm_head.weight"))]
    merged = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    # Adapters on a quantised base are merged into the unquantised one.
    assert torch.allclose(logits(merged, IDS), trained, atol=0.5 if "quantization_bit" in keys else 1e-4)


def test_a_mixture_of_depths_lives(settings: dict[str, Any], tmp_path: Path) -> None:
    keys = {"mixture_of_depths": "convert", "finetuning_type": "full"}
    whole = run(settings, tmp_path / "whole", **keys)
    first = weights(tmp_path / "whole")
    assert [name for name in first if "router" in name] == ["model.layers.1.depth_router.weight"]
    log = [json.loads(line) for line in (tmp_path / "whole" / "events.jsonl").read_text().splitlines()]
    assert any("router_loss" in entry for entry in log)

    stopped = tmp_path / "stopped"
    shutil.copytree(tmp_path / "whole" / "checkpoint-2", stopped / "checkpoint-2")
    run(settings, stopped, **keys)
    assert all(torch.equal(value, weights(stopped)[name]) for name, value in first.items())

    again = settings | {"model_name_or_path": str(tmp_path / "whole")}
    with pytest.raises(ModelError, match="converted already"):
        run(again, tmp_path / "twice", **keys)
    adapter = run(again, tmp_path / "adapter", mixture_of_depths="load", lora_rank=4)
    assert not torch.allclose(live(adapter), live(whole), atol=1e-3)
    opened = open_model(with_result(adapter), batch_size=4)
    prompts = [[5, 9, 40], [7, 33, 21, 60, 12]]
    requests = [GenerationRequest(ids, SamplingParams(do_sample=False, max_new_tokens=6)) for ids in prompts]
    together = dict(opened.engine.generate(requests))
    for place, request in enumerate(requests):
        [(_, alone)] = opened.engine.generate([request])
        assert alone.token_ids == together[place].token_ids
    with pytest.raises(ExportError, match="mixture of depths"):
        export.run(with_result(adapter).replace(export_dir=str(tmp_path / "out")))
    with pytest.raises(ModelError, match="was not converted"):
        run(settings, tmp_path / "plain", mixture_of_depths="load")
