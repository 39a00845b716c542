"""GRPO and PPO on the real 135M model, through the command line: five steps, resume, export, ask."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.e2e, pytest.mark.slow]

CONFIG = """
model_name_or_path: smollm2-135m
template: smollm2
do_train: true
finetuning_type: lora
lora_rank: 4
dataset: {folder}/prompts.json
cutoff_len: 64
max_new_tokens: 6
reward_funcs: {folder}/my.py:score
per_device_train_batch_size: 2
gradient_accumulation_steps: 1
learning_rate: 2.0e-4
max_steps: 5
save_steps: 2
logging_steps: 1
do_sample: true
"""


def tunesmith(*words: str, stdin: str | None = None) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "tunesmith", *words], input=stdin, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def digest(folder: Path) -> str:
    return hashlib.sha256((folder / "adapter_model.safetensors").read_bytes()).hexdigest()


@pytest.mark.parametrize(
    "words", [("stage=grpo", "num_generations=2"), ("stage=ppo", "ppo_epochs=2")], ids=["grpo", "ppo"]
)
def test_five_steps_resume_export_and_ask(tmp_path: Path, words: tuple[str, ...]) -> None:
    prompts = ["Name a colour.", "Who are you?", "What do cows eat?", "Say hello."]
    (tmp_path / "prompts.json").write_text(json.dumps([{"instruction": prompt} for prompt in prompts]))
    (tmp_path / "my.py").write_text("def score(completions):\n    return [text.count('e') for text in completions]\n")
    config = tmp_path / "train.yaml"
    config.write_text(CONFIG.format(folder=tmp_path))
    whole, again = tmp_path / "whole", tmp_path / "again"
    tunesmith("train", str(config), f"output_dir={whole}", *words)
    again.mkdir()
    shutil.copytree(whole / "checkpoint-2", again / "checkpoint-2")
    tunesmith("train", str(config), f"output_dir={again}", *words)
    assert digest(again) == digest(whole)
    merged = tmp_path / "merged"
    common = ("model_name_or_path=smollm2-135m", "template=smollm2")
    tunesmith("export", *common, f"adapter_name_or_path={whole}", f"export_dir={merged}")
    ask = ("do_sample=false", "max_new_tokens=8")
    stdin = "Who are you?\nexit\n"
    own = tunesmith("chat", *common, f"adapter_name_or_path={whole}", *ask, stdin=stdin)
    assert own == tunesmith("chat", f"model_name_or_path={merged}", "template=smollm2", *ask, stdin=stdin)
