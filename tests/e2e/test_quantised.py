"""QLoRA on the real 135M model, through the command line: train on 4 bits, answer on them, export in full."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.e2e, pytest.mark.slow]


def tunesmith(*words: str, stdin: str | None = None) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [sys.executable, "-m", "tunesmith", *words], input=stdin, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done


def test_an_adapter_on_four_bits(tmp_path: Path) -> None:
    rows = json.loads(Path("data/identity.json").read_text(encoding="utf-8"))[:4]
    (tmp_path / "who.json").write_text(json.dumps(rows), encoding="utf-8")
    (tmp_path / "run.yaml").write_text(
        f"""
model_name_or_path: smollm2-135m
template: smollm2
quantization_bit: 4
stage: sft
do_train: true
finetuning_type: lora
dataset: {tmp_path}/who.json
cutoff_len: 96
per_device_train_batch_size: 2
learning_rate: 2.0e-3
max_steps: 2
logging_steps: 1
output_dir: {tmp_path}/out
do_sample: false
max_new_tokens: 8
""",
        encoding="utf-8",
    )
    said = tunesmith("train", str(tmp_path / "run.yaml")).stderr
    match = re.search(r"quantised: 210 of 210 linear layers, nf4 .*; ([\d.]+) MB instead of ([\d.]+) MB", said)
    assert match, said
    assert float(match[1]) < 0.14 * float(match[2])
    lines = (tmp_path / "out" / "trainer_log.jsonl").read_text().splitlines()
    losses = [entry["loss"] for entry in map(json.loads, lines) if "loss" in entry]
    assert len(losses) == 2
    assert losses[1] < losses[0]
    answer = tunesmith(
        "chat", str(tmp_path / "run.yaml"), f"adapter_name_or_path={tmp_path}/out", stdin="Who are you?\nexit\n"
    )
    assert answer.stdout.strip()
    words = [f"adapter_name_or_path={tmp_path}/out", f"export_dir={tmp_path}/merged"]
    assert "unquantised base" in tunesmith("export", str(tmp_path / "run.yaml"), *words).stderr
    assert "quantization_config" not in json.loads((tmp_path / "merged" / "config.json").read_text())
