"""`tunesmith infer`: rows in, answers out, through a kill; and the script of the tutorials, word for word."""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tunesmith.cli.main import main
from tunesmith.config.load import load_config
from tunesmith.config.schema import RunConfig
from tunesmith.core.errors import ConfigError, DataError
from tunesmith.recipes import infer
from tunesmith.recipes.model_digest import stored_digest

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "scripts" / "vllm_infer.py"
N_ROWS = 60


@pytest.fixture
def configure(tmp_path: Path, tiny_model_dir: str, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Writes rows of many lengths and gives the configuration that answers them."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "rows.json").write_text(json.dumps(rows()))

    def make(**changes: Any) -> RunConfig:
        keys = {
            "model_name_or_path": tiny_model_dir,
            "dataset": "rows.json",
            "template": "auto",
            "max_new_tokens": 4,
            "do_sample": False,
            **changes,
        }
        return RunConfig.from_dict(keys, command="infer", rules=True)

    return make


def rows(count: int = N_ROWS) -> list[dict[str, str]]:
    return [
        {"instruction": f"question {i} " + "fox " * (i * 7 % 11), "input": "", "output": f"answer {i}"}
        for i in range(count)
    ]


def answers(name: str = "generated_predictions.jsonl") -> list[dict[str, str]]:
    return [json.loads(line) for line in Path(name).read_text(encoding="utf-8").splitlines()]


def test_rows_in_answers_out(configure: Any) -> None:
    infer.run(configure())
    found = answers()
    assert [row["label"] for row in found] == [f"answer {i}" for i in range(N_ROWS)]
    assert all(set(row) == {"prompt", "predict", "label"} for row in found)
    assert all(f"question {i} " in row["prompt"] for i, row in enumerate(found))
    assert sorted(path.name for path in Path().iterdir()) == [
        "generated_predictions.jsonl",
        "generated_predictions.state.json",
        "rows.json",
    ]


def test_order_and_batches_change_no_answer(configure: Any) -> None:
    """Sorted by length or not, one at a time or many; drawn answers, too: each row has a seed of its own."""
    drawn = {"do_sample": True, "temperature": 2.0, "top_p": 1.0, "top_k": 0, "seed": 5}
    infer.run(configure(**drawn, batch_size=1, save_name="one.jsonl"))
    infer.run(configure(**drawn, save_name="many.jsonl"))
    infer.run(configure(**{**drawn, "seed": 6}, save_name="other.jsonl"))
    assert answers("one.jsonl") == answers("many.jsonl")
    assert answers("other.jsonl") != answers("many.jsonl")


def test_scores_where_they_are_asked_for(configure: Any) -> None:
    infer.run(configure(max_samples=5, matrix_save_name="out/scores.json"))
    scores = json.loads(Path("out/scores.json").read_text())
    assert set(scores) == {
        *(f"predict_{name}" for name in ("bleu-4", "rouge-1", "rouge-2", "rouge-l")),
        *(f"predict_{name}" for name in ("runtime", "samples_per_second", "steps_per_second")),
        "predict_model_preparation_time",
    }
    infer.run(configure(max_samples=5, matrix_save_name="again.json"))  # nothing is answered twice
    again = json.loads(Path("again.json").read_text())
    assert again["predict_samples_per_second"] == 0
    assert again["predict_rouge-l"] == scores["predict_rouge-l"]


def test_a_file_of_someone_else_is_not_written_over(configure: Any) -> None:
    Path("mine.jsonl").write_text('{"a": 1}\n')
    with pytest.raises(DataError, match="not of this command"):
        infer.run(configure(save_name="mine.jsonl"))
    assert Path("mine.jsonl").read_text() == '{"a": 1}\n'
    Path("folder").mkdir()
    with pytest.raises(ConfigError, match="save_name: folder is a folder"):
        configure(save_name="folder")


def test_other_settings_keep_the_old_answers_aside(configure: Any) -> None:
    infer.run(configure(max_samples=3))
    before = Path("generated_predictions.jsonl").read_bytes()
    infer.run(configure(max_samples=3, max_new_tokens=2))
    assert Path("generated_predictions.jsonl.old").read_bytes() == before
    assert len(answers()) == 3


def test_an_adapter_is_another_model(configure: Any) -> None:
    """What tells models apart are the weights in their folders, not names."""
    config = configure()
    one = stored_digest(config)
    assert one == stored_digest(configure())
    assert one != stored_digest(configure(infer_dtype="bfloat16"))
    weights = Path("copy")
    weights.mkdir()
    for file in Path(config.model_name_or_path).iterdir():
        (weights / file.name).write_bytes(file.read_bytes())
    assert one == stored_digest(configure(model_name_or_path="./copy"))
    changed = bytearray((weights / "model.safetensors").read_bytes())
    changed[-1] ^= 1
    (weights / "model.safetensors").write_bytes(changed)
    assert one != stored_digest(configure(model_name_or_path="./copy"))


def test_held_out_rows_of_a_training_file(configure: Any) -> None:
    """One file serves all commands: what `val_size` held out in training is what is answered."""
    infer.run(configure(val_size=6, stage="sft", learning_rate=1e-4, output_dir="saves/x"))
    assert len(answers()) == 6
    assert not Path("saves").exists()


def test_two_processes_do_not_write_one_file(configure: Any) -> None:
    import fcntl

    with Path("generated_predictions.ahead.jsonl").open("a") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        with pytest.raises(DataError, match="another process"):
            infer.run(configure(max_samples=2))


def test_without_data_it_says_so(configure: Any) -> None:
    with pytest.raises(ConfigError, match="dataset is missing"):
        configure(dataset=None)


def script_words(*argv: str) -> list[str]:
    spec = importlib.util.spec_from_file_location("vllm_infer", SCRIPT)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return list(module.words_of(list(argv)))


def test_the_words_of_the_script() -> None:
    config = load_config(script_words("--model_name_or_path", "m", "--matrix_save_name", "scores.json"), "infer")
    assert config.dataset == ("alpaca_en_demo",)
    assert "infer_backend" in config.explicit
    argv = (
        *("--model_name_or_path", "m", "--adapter_name_or_path", "None", "--dataset", "identity,alpaca_en_demo"),
        *("--dataset_dir=data", "--template", "qwen", "--cutoff_len", "512", "--max_samples=None"),
        *("--save_name", "out.jsonl", "--matrix_save_name", "scores.json", "--temperature", "0.5", "--top_p", "0.9"),
        *("--top_k", "20", "--max-new-tokens", "64", "--repetition_penalty", "1.1", "--skip_special_tokens", "False"),
        *("--default_system", "Be kind.", "--enable_thinking", "False", "--seed", "3", "--batch_size", "1024"),
        *("--pipeline_parallel_size", "1", "--infer_backend", "huggingface"),
    )
    config = load_config(script_words(*argv), "infer")
    assert (config.model_name_or_path, config.adapter_name_or_path, config.max_samples) == ("m", (), None)
    assert (config.dataset, config.template) == (("identity", "alpaca_en_demo"), "qwen")
    assert (config.save_name, config.matrix_save_name) == ("out.jsonl", "scores.json")
    assert (config.max_new_tokens, config.seed, config.batch_size, config.top_k) == (64, 3, 1024, 20)
    assert (config.skip_special_tokens, config.enable_thinking) == (False, False)
    assert script_words("run.yaml", "max_samples=3") == ["run.yaml", "max_samples=3"]
    with pytest.raises(SystemExit, match="pipeline_parallel_size"):
        script_words("--model_name_or_path", "m", "--pipeline_parallel_size", "2")


@pytest.mark.slow
def test_killed_and_called_again(configure: Any, tmp_path: Path) -> None:
    """The script as it is printed, killed with SIGKILL in the middle, twice: nothing is lost, nothing comes twice."""
    config = configure()
    many = rows(400)
    (tmp_path / "rows.json").write_text(json.dumps(many))
    words = ["--model_name_or_path", str(config.model_name_or_path), "--dataset", "rows.json", "--batch_size", "4"]
    words += ["--max_new_tokens", "60", "--do_sample", "False", "--template", "auto"]
    command = [sys.executable, str(SCRIPT), *words]
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src"), "OMP_NUM_THREADS": "1"}
    file = Path("generated_predictions.jsonl")
    counts = [0]
    for _ in range(2):
        process = subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + 120
        while not file.exists() or file.read_bytes().count(b"\n") < counts[-1] + 20:
            assert process.poll() is None, "it ended before it could be killed"
            assert time.monotonic() < deadline
            time.sleep(0.002)
        process.send_signal(signal.SIGKILL)
        process.wait()
        counts.append(file.read_bytes().count(b"\n"))
    assert counts[-1] < len(many)
    before = file.read_bytes()
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert f"{counts[-1]} of 400 rows are there" in done.stderr
    assert file.read_bytes().startswith(before[: before.rfind(b"\n") + 1])
    assert [row["label"] for row in answers()] == [row["output"] for row in many]
    assert not Path("generated_predictions.ahead.jsonl").exists()
    whole = [*words, "--save_name", "whole.jsonl"]
    assert main(["infer", *whole]) == 0
    assert Path("whole.jsonl").read_bytes() == file.read_bytes()
