"""The main job on the real 135M model, through the command line: train, kill, resume, merge, ask."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

pytestmark = [pytest.mark.e2e, pytest.mark.slow]

STEPS = 30
QUESTION = "Who are you?"


def tunesmith(*words: str, stdin: str | None = None, check: bool = True) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [sys.executable, "-m", "tunesmith", *words], input=stdin, capture_output=True, text=True, check=False
    )
    if check:
        assert done.returncode == 0, done.stderr[-3000:]
    return done


@pytest.fixture(scope="module")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with 20 short identity rows and a configuration of 30 steps."""
    folder = tmp_path_factory.mktemp("workshop")
    rows = json.loads(Path("data/identity.json").read_text(encoding="utf-8"))
    filled = json.loads(json.dumps(rows[:20]).replace("{{name}}", "Tuney").replace("{{author}}", "the workshop"))
    (folder / "who.json").write_text(json.dumps(filled), encoding="utf-8")
    (folder / "train.yaml").write_text(
        f"""
model_name_or_path: smollm2-135m
template: smollm2
stage: sft
do_train: true
finetuning_type: lora
lora_dropout: 0.05
dataset: {folder}/who.json
cutoff_len: 128
per_device_train_batch_size: 2
learning_rate: 1.0e-3
lr_scheduler_type: cosine
max_steps: {STEPS}
save_steps: 5
save_total_limit: 2
logging_steps: 1
plot_loss: true
do_sample: false
max_new_tokens: 24
""",
        encoding="utf-8",
    )
    return folder


def digest(folder: Path) -> str:
    return hashlib.sha256((folder / "adapter_model.safetensors").read_bytes()).hexdigest()


def log_of(folder: Path) -> list[dict[str, Any]]:
    lines = (folder / "trainer_log.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


@pytest.fixture(scope="module")
def whole(workshop: Path) -> Path:
    """The run that nobody stopped."""
    folder = workshop / "whole"
    tunesmith("train", str(workshop / "train.yaml"), f"output_dir={folder}")
    return folder


def test_loss_falls_and_every_promised_file_is_there(whole: Path) -> None:
    losses = [entry["loss"] for entry in log_of(whole) if "loss" in entry]
    assert len(losses) == STEPS
    assert sum(losses[-5:]) / 5 < 0.5 * sum(losses[:5]) / 5
    names = {path.name for path in whole.iterdir()}
    assert names >= {
        "adapter_config.json", "adapter_model.safetensors", "trainer_log.jsonl", "trainer_state.json",
        "training_loss.png", "train_results.json", "all_results.json", "README.md", "training_args.yaml",
        "tokenizer.json", "checkpoint-25", "checkpoint-30",
    }  # fmt: skip
    assert ".incomplete" not in names


def test_kill_9_and_resume_ends_with_the_same_bytes(workshop: Path, whole: Path) -> None:
    folder = workshop / "killed"
    command = [sys.executable, "-m", "tunesmith", "train", str(workshop / "train.yaml"), f"output_dir={folder}"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 600
    while not (folder / "checkpoint-10").is_dir():
        assert process.poll() is None, "the run ended before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.05)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    resumed = tunesmith("train", str(workshop / "train.yaml"), f"output_dir={folder}")
    assert "resuming from" in resumed.stderr
    assert digest(folder) == digest(whole)
    steps = [entry["current_steps"] for entry in log_of(folder) if "loss" in entry]
    assert steps == list(range(1, STEPS + 1))


def test_sigterm_writes_a_checkpoint_and_the_same_command_goes_on(workshop: Path, whole: Path) -> None:
    folder = workshop / "stopped"
    command = [sys.executable, "-m", "tunesmith", "train", str(workshop / "train.yaml"), f"output_dir={folder}"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    while not (folder / "trainer_log.jsonl").is_file():
        assert process.poll() is None
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    _, stderr = process.communicate(timeout=600)
    assert process.returncode == 128 + signal.SIGTERM
    assert "checkpoint written" in stderr
    tunesmith("train", str(workshop / "train.yaml"), f"output_dir={folder}")
    assert digest(folder) == digest(whole)


def test_the_adapter_loads_in_plain_peft(whole: Path) -> None:
    from peft import AutoPeftModelForCausalLM

    model = AutoPeftModelForCausalLM.from_pretrained(str(whole))
    assert any(parameter.abs().sum() > 0 for name, parameter in model.named_parameters() if "lora_B" in name)


def test_the_merged_folder_answers_as_the_adapter_does(workshop: Path, whole: Path) -> None:
    config = str(workshop / "train.yaml")
    merged = workshop / "merged"
    tunesmith("export", config, f"adapter_name_or_path={whole}", f"export_dir={merged}")
    stdin = f"{QUESTION}\nexit\n"
    live = tunesmith("chat", config, f"adapter_name_or_path={whole}", stdin=stdin).stdout
    alone = tunesmith("chat", config, f"model_name_or_path={merged}", stdin=stdin).stdout
    base = tunesmith("chat", config, stdin=stdin).stdout
    assert live == alone
    assert live != base
    assert "Tuney" in live
    assert (merged / "Modelfile").is_file()
    assert json.loads((merged / "export_report.json").read_text())
    generation = json.loads((merged / "generation_config.json").read_text())
    ends = generation["eos_token_id"]
    assert 2 in (ends if isinstance(ends, list) else [ends])


def test_weights_without_checkpoints_are_not_overwritten_unasked(workshop: Path, whole: Path) -> None:
    folder = workshop / "finished"
    folder.mkdir()
    (folder / "adapter_model.safetensors").write_bytes((whole / "adapter_model.safetensors").read_bytes())
    done = tunesmith("train", str(workshop / "train.yaml"), f"output_dir={folder}", check=False)
    assert done.returncode == 2
    assert "overwrite_output_dir" in done.stderr
