"""Stages of text, pairs and marks on the real 135M model, through the command line: train, resume, export, chat."""

from __future__ import annotations

import hashlib
import io
import json
import math
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest

from tunesmith.cli.main import main

pytestmark = [pytest.mark.e2e, pytest.mark.slow]

DATA = {"pt": "c4_demo", "rm": "dpo_en_demo", "dpo": "dpo_en_demo", "kto": "kto_en_demo"}
STEPS, STOP = 5, 3


def words(**keys: Any) -> list[str]:
    return [f"{name}={value}" for name, value in keys.items()]


def digest(folder: Path) -> str:
    """Of all weights in a folder, value head and all."""
    found = hashlib.sha256()
    files = sorted(folder.glob("*.safetensors"))
    assert files
    for file in files:
        found.update(file.name.encode() + file.read_bytes())
    return found.hexdigest()


@pytest.mark.parametrize("finetuning_type", ["lora", "freeze"])
@pytest.mark.parametrize("stage", DATA)
def test_a_stage_trains_resumes_to_the_same_bytes_exports_and_chats(
    stage: str,
    finetuning_type: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    settings = {
        "model_name_or_path": "smollm2-135m",
        "template": "smollm2",
        "stage": stage,
        "do_train": True,
        "finetuning_type": finetuning_type,
        "freeze_trainable_layers": 1,
        "dataset": DATA[stage],
        "cutoff_len": 64,
        "max_samples": 12,
        "per_device_train_batch_size": 2,
        "learning_rate": 1e-4,
        "lora_dropout": 0.05,
        "max_steps": STEPS,
        "save_steps": STOP,
        "save_total_limit": 3,
        "logging_steps": 1,
    }
    whole, resumed = tmp_path / "whole", tmp_path / "resumed"
    main(["train", *words(**settings, output_dir=whole)])
    log = [json.loads(line) for line in (whole / "trainer_log.jsonl").read_text().splitlines()]
    first = {"pt": None, "rm": None, "dpo": math.log(2), "kto": 0.5}[stage]
    if first is not None and finetuning_type == "freeze":  # with LoRA dropout is on in the policy alone
        assert log[0]["loss"] == pytest.approx(first, abs=1e-4)
    assert all(math.isfinite(line["loss"]) for line in log if "loss" in line)
    resumed.mkdir()
    shutil.move(whole / f"checkpoint-{STOP}", resumed / f"checkpoint-{STOP}")
    main(["train", *words(**settings, output_dir=resumed, resume_from_checkpoint=resumed / f"checkpoint-{STOP}")])
    assert digest(resumed) == digest(whole)
    assert (whole / "value_head.safetensors").is_file() == (stage == "rm")
    result = {"adapter_name_or_path": whole} if finetuning_type == "lora" else {"model_name_or_path": whole}
    loaded = settings | {"finetuning_type": finetuning_type} | result
    main(["export", *words(**loaded, export_dir=tmp_path / "merged")])
    assert (tmp_path / "merged" / "value_head.safetensors").is_file() == (stage == "rm")
    monkeypatch.setattr(sys, "stdin", io.StringIO("Who are you?\n"))
    capsys.readouterr()
    merged = settings | {"model_name_or_path": tmp_path / "merged", "do_sample": False, "max_new_tokens": 8}
    main(["chat", *words(**merged)])
    assert len(capsys.readouterr().out.strip()) > 3
