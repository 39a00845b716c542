"""Every stage of text, pairs and marks on the real 135M model: five steps, killed, resumed, exported, asked.

Commands run in processes that are forked from one with the libraries in memory, which saves most of the start-up time.
Stages ppo and grpo are in test_reinforcement.py.
"""

from __future__ import annotations

import hashlib
import io
import json
import math
import multiprocessing
import os
import shutil
import signal
import sys
from collections.abc import Iterator
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import pytest

pytestmark = [pytest.mark.e2e, pytest.mark.slow]

DATA = {"pt": "c4_demo", "sft": "alpaca_en_demo", "rm": "dpo_en_demo", "dpo": "dpo_en_demo", "kto": "kto_en_demo"}
CASES = [(stage, kind) for stage in DATA for kind in ("lora", "full" if stage == "sft" else "freeze")]
STEPS, STOP = 5, 3
LIBRARIES = ["datasets", "peft", "accelerate", "tunesmith.models.load", "tunesmith.training.trainer"]


def command(argv: list[str], folder: Path, typed: str, is_killed: bool) -> None:
    """What a process does: one command of the command line, dying at its first checkpoint where that is asked."""
    from tunesmith.cli.main import main
    from tunesmith.training import trainer

    publish = trainer.publish

    def publish_and_die(*parts: Any) -> None:
        publish(*parts)
        os.kill(os.getpid(), signal.SIGKILL)

    if is_killed:
        trainer.publish = publish_and_die
    sys.stdin = io.StringIO(typed)
    with (
        (folder / "out").open("w") as out,
        (folder / "err").open("w") as err,
        redirect_stdout(out),
        redirect_stderr(err),
    ):
        status = main(argv)
    sys.exit(status)


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """Gigabytes of weights do not outlive their test."""
    yield tmp_path
    shutil.rmtree(tmp_path)


def run(folder: Path, verb: str, *, typed: str = "", is_killed: bool = False, **keys: Any) -> tuple[str, str]:
    """Runs one command; what it wrote to stdout and to stderr."""
    processes = multiprocessing.get_context("forkserver")
    processes.set_forkserver_preload(LIBRARIES)
    argv = [verb, *(f"{name}={value}" for name, value in keys.items())]
    process = processes.Process(target=command, args=(argv, folder, typed, is_killed))
    process.start()
    process.join()
    out, err = ((folder / name).read_text() for name in ("out", "err"))
    assert process.exitcode == (-signal.SIGKILL if is_killed else 0), err[-3000:]
    return out, err


def digest(folder: Path) -> str:
    """Of all weights in a folder, value head and all."""
    found = hashlib.sha256()
    files = sorted(folder.glob("*.safetensors"))
    assert files
    for file in files:
        found.update(file.name.encode() + file.read_bytes())
    return found.hexdigest()


def losses(folder: Path) -> list[float]:
    entries = map(json.loads, (folder / "trainer_log.jsonl").read_text(encoding="utf-8").splitlines())
    return [entry["loss"] for entry in entries if "loss" in entry]


@pytest.mark.parametrize(("stage", "kind"), CASES)
def test_a_stage_trains_is_killed_resumes_to_the_same_bytes_exports_and_chats(
    folder: Path, stage: str, kind: str
) -> None:
    base = {"model_name_or_path": "smollm2-135m", "template": "smollm2"}
    settings = base | {
        "stage": stage,
        "do_train": True,
        "finetuning_type": kind,
        "dataset": DATA[stage],
        "cutoff_len": 48,
        "max_samples": 12,
        "per_device_train_batch_size": 2,
        "gradient_accumulation_steps": 1,
        "learning_rate": 1e-4,
        "max_steps": STEPS,
        "save_steps": STOP,
        "save_total_limit": 1,
        "logging_steps": 1,
    }
    settings |= {"lora": {"lora_dropout": 0.05}, "freeze": {"freeze_trainable_layers": 1}, "full": {}}[kind]
    whole, stopped = folder / "whole", folder / "stopped"
    run(folder, "train", **settings, output_dir=stopped, is_killed=True)
    assert [path.name for path in stopped.glob("checkpoint-*")] == [f"checkpoint-{STOP}"]
    assert f"checkpoint-{STOP}" in run(folder, "train", **settings, output_dir=stopped)[1]
    found = digest(stopped)
    shutil.rmtree(stopped)
    run(folder, "train", **settings, output_dir=whole)
    assert digest(whole) == found
    assert len(losses(whole)) == STEPS
    assert all(map(math.isfinite, losses(whole)))
    first = {"dpo": math.log(2), "kto": 0.5}.get(stage)
    if first is not None and kind != "lora":  # with LoRA dropout is on in the policy alone
        assert losses(whole)[0] == pytest.approx(first, abs=1e-4)
    result = {"adapter_name_or_path": whole} if kind == "lora" else {"model_name_or_path": whole}
    merged = folder / "merged"
    run(folder, "export", **(base | {"stage": stage} | result), finetuning_type=kind, export_dir=merged)
    for place in (whole, merged):
        assert (place / "value_head.safetensors").is_file() == (stage == "rm")
    ask = {"do_sample": False, "max_new_tokens": 8, "infer_dtype": "float32"}
    own, exported = (
        run(folder, "chat", typed="Who are you?\nexit\n", **(base | ask | model))[0].strip()
        for model in (result, {"model_name_or_path": merged})
    )
    assert own == exported
    assert own
