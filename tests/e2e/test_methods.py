"""Every example of a tuning method makes steps on the real 135M model, through the command line."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.e2e, pytest.mark.slow]

EXTRAS = Path("examples/extras")
SMALL = (
    "max_steps=2",
    "max_samples=8",
    "per_device_train_batch_size=2",
    "gradient_accumulation_steps=1",
    "logging_steps=1",
)
ADAPTERS = ("dora", "loraplus", "pissa", "loftq", "neftune", "oft", "longlora")
MERGED = ("dora", "pissa", "oft")
"""The others save what LoRA saves, which is merged elsewhere."""
BASE = "model_name_or_path=smollm2-135m"


def tunesmith(*words: str, stdin: str | None = None) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "tunesmith", *words], input=stdin, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout + done.stderr


def ask(*words: str) -> str:
    return tunesmith("chat", "template=smollm2", "do_sample=false", "max_new_tokens=8", *words, stdin="Hello\nexit\n")


def losses(folder: Path) -> list[float]:
    entries = map(json.loads, (folder / "trainer_log.jsonl").read_text(encoding="utf-8").splitlines())
    return [entry["loss"] for entry in entries if "loss" in entry]


@pytest.mark.parametrize("name", ADAPTERS)
def test_an_adapter_trains_and_merges(tmp_path: Path, name: str) -> None:
    [example] = (EXTRAS / name).glob("smollm2_*.yaml")
    out, merged = tmp_path / "out", tmp_path / "merged"
    tunesmith("train", str(example), *SMALL, "logging_steps=1", f"output_dir={out}")
    found = losses(out)
    assert len(found) == 2
    assert all(0 < loss < 6 for loss in found)
    if name in MERGED:
        words = (BASE, "template=smollm2", f"adapter_name_or_path={out}", f"export_dir={merged}", "infer_dtype=float32")
        tunesmith("export", *words)
        report = json.loads((merged / "export_report.json").read_text(encoding="utf-8"))
        assert report["difference_from_base"] > 10 * report["max_logit_difference"]
    if name == "oft":
        answers = [ask(BASE, f"adapter_name_or_path={out}"), ask(f"model_name_or_path={merged}")]
        assert answers[0].splitlines()[-2:] == answers[1].splitlines()[-2:]


def test_added_blocks_change_no_answer_and_are_trained_alone(tmp_path: Path) -> None:
    pro, out = tmp_path / "pro", tmp_path / "out"
    tunesmith("expand", str(EXTRAS / "llama_pro" / "expand.yaml"), f"output_dir={pro}")
    answers = [ask(f"model_name_or_path={pro}"), ask(BASE)]
    assert answers[0].splitlines()[-2:] == answers[1].splitlines()[-2:]
    example = str(EXTRAS / "llama_pro" / "smollm2_freeze_sft.yaml")
    tunesmith("train", example, *SMALL, "logging_steps=1", f"model_name_or_path={pro}", f"output_dir={out}")
    assert len(losses(out)) == 2


def test_a_mixture_of_depths_trains_and_answers(tmp_path: Path) -> None:
    out = tmp_path / "out"
    tunesmith("train", str(EXTRAS / "mod" / "smollm2_full_sft.yaml"), *SMALL, "logging_steps=1", f"output_dir={out}")
    assert len(losses(out)) == 2
    ask(f"model_name_or_path={out}")
