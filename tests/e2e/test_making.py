"""The tutorial's whole way on the real 135M model: cut a book, have entries written, train on them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.e2e, pytest.mark.slow]

ROOT = Path(__file__).parents[2]


def tunesmith(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if name not in ("BASE_URL", "API_KEY", "MODEL")}
    done = subprocess.run(
        [sys.executable, "-m", "tunesmith", *words],
        capture_output=True, text=True, check=False, cwd=folder, env=environment,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    return done


def test_a_book_becomes_a_data_set_and_a_model(tmp_path: Path) -> None:
    (tmp_path / "book").mkdir()
    text = (ROOT / "examples" / "data" / "book" / "harbour_guide.txt").read_bytes()
    (tmp_path / "book" / "guide.txt").write_bytes(text)
    (tmp_path / ".env").write_text("INPUT_FILE_PATH=./book/guide.txt\nENTRIES_PER_FILE=3\n", encoding="utf-8")
    model = ("--model_name_or_path", "smollm2-135m", "--template", "smollm2")
    tunesmith(tmp_path, "data", "split", "--chunk_tokens", "160", "--chunk_tokenizer", "smollm2-135m")
    assert len(list((tmp_path / "saveChunk").glob("guide_*.txt"))) == 4
    keys = ("temperature=0.5", "top_p=0.9", "max_attempts=1", "instruction_types=what,when,why,how", "seed=1")
    making = ("data", "make", "--chunks", "saveChunk", *model, *keys)
    tunesmith(tmp_path, *making)
    output = tmp_path / "output"
    facts = json.loads((output / "making_results.json").read_text(encoding="utf-8"))
    assert facts["requested"] == 12 == facts["kept"] + facts["failed"]
    assert facts["kept"] >= 4
    rows = [json.loads(line) for line in (output / "instruction_dataset.jsonl").read_text().splitlines()]
    book = text.decode()
    assert all(book[row["start"] : row["end"]] == row["quote"] != "" for row in rows)
    assert {row["file"] for row in rows} == {"book/guide.txt"}
    again = tunesmith(tmp_path, *making).stdout
    assert "(0 now" in again, "a finished set asks nothing"

    steps = ("max_steps=12", "learning_rate=1e-3", "logging_steps=1", "per_device_train_batch_size=2", "cutoff_len=128")
    tunesmith(
        tmp_path, "train", *model, "--do_train", "--stage", "sft", "--finetuning_type", "lora",
        "dataset=instruction_dataset", "dataset_dir=output", "output_dir=saves", *steps,
    )  # fmt: skip
    log = [json.loads(line) for line in (tmp_path / "saves" / "trainer_log.jsonl").read_text().splitlines()]
    losses = [entry["loss"] for entry in log if "loss" in entry]
    assert len(losses) == 12
    assert sum(losses[-3:]) < 0.7 * sum(losses[:3])
    assert (tmp_path / "saves" / "adapter_model.safetensors").is_file()
