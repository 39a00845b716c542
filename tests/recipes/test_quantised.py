"""The life of an adapter on a quantised base: train, resume to the same bytes, answer, evaluate, export in full."""

from __future__ import annotations

import json
import logging
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from tests.conftest import make_tiny_llama
from tests.models.tiny import IDS, logits
from transformers import AutoModelForCausalLM

from tunesmith.config.result import with_result
from tunesmith.config.schema import RunConfig
from tunesmith.inference.engine import GenerationRequest, SamplingParams
from tunesmith.inference.opening import open_model
from tunesmith.models.load import load_model
from tunesmith.models.tokenizer import load_tokenizer
from tunesmith.recipes import export, train

KINDS: dict[str, dict[str, Any]] = {
    "nf4": {"quantization_bit": 4},
    "bnb8": {"quantization_bit": 8},
    "hqq4": {"quantization_bit": 4, "quantization_method": "hqq"},
    "torchao8": {"quantization_bit": 8, "quantization_method": "torchao"},
    "quanto8": {"quantization_bit": 8, "quantization_method": "quanto"},
}


@pytest.fixture
def settings(tmp_path: Path, tiny_tokenizer: Any, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    monkeypatch.setenv("TUNESMITH_HOME", str(tmp_path / "home"))
    make_tiny_llama(hidden_size=64, intermediate_size=128).save_pretrained(tmp_path / "base")
    tiny_tokenizer.save_pretrained(tmp_path / "base")
    rows = [{"instruction": f"say {n}", "input": "", "output": f"the fox says {n} " * (n % 3 + 1)} for n in range(8)]
    (tmp_path / "rows.json").write_text(json.dumps(rows))
    return {
        "model_name_or_path": str(tmp_path / "base"),
        "template": "chatml",
        "dataset": str(tmp_path / "rows.json"),
        "eval_dataset": str(tmp_path / "rows.json"),
        "eval_strategy": "steps",
        "eval_steps": 1,
        "do_train": True,
        "use_cpu": True,
        "cutoff_len": 64,
        "per_device_train_batch_size": 2,
        "max_steps": 4,
        "save_steps": 2,
        "logging_steps": 1,
        "learning_rate": 1e-2,
    }


def run(settings: dict[str, Any], folder: Path, **keys: Any) -> RunConfig:
    config = RunConfig.from_dict(settings | {"output_dir": str(folder)} | keys, rules=True)
    train.run(config)
    return config


@pytest.mark.parametrize("kind", KINDS)
def test_an_adapter_lives_on_it(
    kind: str, settings: dict[str, Any], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    keys = KINDS[kind]
    whole = run(settings, tmp_path / "whole", **keys)
    assert any("quantised: 14 of 14 linear layers" in record.getMessage() for record in caplog.records)
    note = json.loads((tmp_path / "whole" / "tunesmith.json").read_text())
    assert note["quantization"].startswith(f"{keys['quantization_bit']} bits of ")

    stopped = tmp_path / "stopped"
    shutil.copytree(tmp_path / "whole" / "checkpoint-2", stopped / "checkpoint-2")
    run(settings, stopped, **keys)
    first, second = (load_file(tmp_path / name / "adapter_model.safetensors") for name in ("whole", "stopped"))
    assert all(torch.equal(value, second[name]) for name, value in first.items())
    assert any(value.norm() > 0 for name, value in first.items() if "lora_B" in name)

    answering = with_result(whole).replace(do_sample=False, max_new_tokens=4)
    live = logits(load_model(answering, load_tokenizer(answering), trainable=False), IDS)
    base = logits(AutoModelForCausalLM.from_pretrained(settings["model_name_or_path"]), IDS)
    assert (live - base).norm() > 0.02 * base.norm()

    out = with_result(whole).replace(export_dir=str(tmp_path / "out"), infer_dtype="float32")
    export.run(out)
    merged = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    assert "quantization_config" not in json.loads((tmp_path / "out" / "config.json").read_text())
    assert (logits(merged, IDS) - live).norm() < 0.3 * (live - base).norm() + 0.2 * base.norm()


@pytest.mark.parametrize("kind", ["nf4", "hqq4", "torchao8"])
@pytest.mark.parametrize("keep_apart", [False, True], ids=["merged in use", "live"])
def test_the_engine_answers_on_it(kind: str, keep_apart: bool, settings: dict[str, Any], tmp_path: Path) -> None:
    """Greedy answers of the engine equal those of plain generation with the same quantised model."""
    trained = run(settings | {"eval_strategy": "no", "eval_dataset": None}, tmp_path / "run", **KINDS[kind])
    config = with_result(trained)
    config = RunConfig.from_dict(
        {
            "model_name_or_path": config.model_name_or_path,
            "adapter_name_or_path": str(tmp_path / "run"),
            "template": "chatml",
            "use_cpu": True,
            "infer_dtype": "float32",
            **KINDS[kind],
        },
        command="chat",
    )
    opened = open_model(config, batch_size=2, keep_apart=keep_apart)
    prompts = [[1, 5, 9, 40, 7, 33], [1, 21, 60, 12]]
    sampling = SamplingParams(do_sample=False, max_new_tokens=6, repetition_penalty=1.0)
    requests = [GenerationRequest(ids, sampling, adapter=opened.adapter) for ids in prompts]
    answers = dict(opened.engine.generate(requests))
    model = load_model(config, load_tokenizer(config), trainable=False)
    for number, ids in enumerate(prompts):
        answer = answers[number].token_ids
        for token in answer:
            with torch.no_grad():
                assert model(input_ids=torch.tensor([ids])).logits[0, -1].argmax().item() == token
            ids.append(token)
        assert len(answer) == 6
