"""The forgetting probe on the real 135M model: a gentle run is not flagged, one that over-fits is."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.e2e, pytest.mark.slow]

DATA = Path(__file__).parents[2] / "data"
MODEL = "model_name_or_path=smollm2-135m"


def tunesmith(*words: str) -> str:
    done = subprocess.run([sys.executable, "-m", "tunesmith", *words], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


@pytest.mark.parametrize(
    ("keys", "verdict"),
    [
        (("learning_rate=1e-5", "max_steps=3", "dataset=alpaca_en_demo", "max_samples=60"), "no forgetting"),
        (("learning_rate=1e-2", "max_steps=20", "dataset=identity", "max_samples=4", "seed=1"), "forgotten"),
    ],
    ids=["gentle", "overfit"],
)
def test_the_verdict_on_a_run(tmp_path: Path, keys: tuple[str, ...], verdict: str) -> None:
    out, save = tmp_path / "out", tmp_path / "probe"
    tunesmith(
        "train", MODEL, "template=smollm2", "stage=sft", "do_train=true", "finetuning_type=lora",
        f"dataset_dir={DATA}", f"output_dir={out}", "cutoff_len=128", "per_device_train_batch_size=4",
        "save_strategy=no", "logging_steps=1", *keys,
    )  # fmt: skip
    shown = tunesmith("eval", "--forgetting", MODEL, f"adapter_name_or_path={out}", f"save_dir={save}", "batch_size=16")
    found = json.loads((save / "forgetting.json").read_text(encoding="utf-8"))
    assert found["verdict"] == verdict, shown
    assert found["losses"][0]["items"] >= 200
    assert found["losses"][0]["right_before"] > 0.6, "a model that knows nothing has nothing to forget"
