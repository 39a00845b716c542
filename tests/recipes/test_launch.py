"""Several processes on one machine: who is started, that they stop at one step, go on exactly, and end together."""

from __future__ import annotations

import hashlib
import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest
from tests.conftest import make_tiny_llama

from tunesmith.core import env
from tunesmith.core.errors import EnvironmentValueError
from tunesmith.core.run_state import read_state
from tunesmith.recipes import launch

STEPS = 60
NODES = {"NNODES": "2", "NODE_RANK": "1", "MASTER_ADDR": "10.0.0.1", "MASTER_PORT": "29500"}
STAGES: dict[str, dict[str, Any]] = {
    "packed text": {"stage": "pt", "finetuning_type": "lora", "dataset": "c4_demo", "packing": True},
    "whole model, head of its own": {"stage": "sft", "finetuning_type": "full", "dataset": "identity"},
    "reward": {"stage": "rm", "finetuning_type": "lora", "dataset": "dpo_en_demo"},
    "pairs, kept reference": {"stage": "dpo", "finetuning_type": "freeze", "freeze_trainable_layers": 1,
                              "dataset": "dpo_en_demo"},
    "marks": {"stage": "kto", "finetuning_type": "lora", "dataset": "kto_en_demo"},
    "reinforcement": {"stage": "grpo", "finetuning_type": "lora", "dataset": "alpaca_en_demo",
                      "reward_funcs": "length:10", "max_new_tokens": 6},
}  # fmt: skip
NAMES = ("NNODES", "NODE_RANK", "MASTER_ADDR", "MASTER_PORT", "NPROC_PER_NODE", "WORLD_SIZE", "RDZV_ID")


@pytest.fixture(autouse=True)
def no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (*NAMES, "FORCE_TORCHRUN"):
        monkeypatch.delenv(name, raising=False)


def planned(monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], n_devices: int, **keys: Any) -> Any:
    monkeypatch.setattr(launch, "_n_devices", lambda: n_devices)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    config: Any = SimpleNamespace(**{"use_cpu": False, "do_train": True, "do_eval": False} | keys)
    return launch.plan(config, ["my run.yaml"])


@pytest.mark.parametrize(
    ("variables", "n_devices", "keys", "processes"),
    [
        ({}, 0, {}, None),
        ({}, 1, {}, None),
        ({"FORCE_TORCHRUN": "1"}, 0, {}, None),
        ({}, 4, {}, (4, 4)),
        ({"FORCE_TORCHRUN": "1"}, 4, {}, (4, 4)),
        ({}, 4, {"use_cpu": True}, None),
        ({}, 4, {"do_train": False}, None),
        ({}, 4, {"do_train": False, "do_eval": True}, (4, 4)),
        ({"NPROC_PER_NODE": "1"}, 4, {}, None),
        ({"NPROC_PER_NODE": "2"}, 4, {}, (2, 2)),
        ({"NPROC_PER_NODE": "2"}, 0, {}, (2, 2)),
        ({"NPROC_PER_NODE": "2", "WORLD_SIZE": "2"}, 0, {}, None),
        (NODES, 0, {}, (1, 2)),
        (NODES, 4, {}, (4, 8)),
    ],
)
def test_who_is_started(
    monkeypatch: pytest.MonkeyPatch,
    variables: dict[str, str],
    n_devices: int,
    keys: dict[str, Any],
    processes: tuple[int, int] | None,
) -> None:
    plan = planned(monkeypatch, variables, n_devices, **keys)
    assert (plan and (plan.local, plan.world)) == processes


@pytest.mark.parametrize(
    ("variables", "n_devices", "words"),
    [
        ({"NPROC_PER_NODE": "4"}, 2, "NPROC_PER_NODE=4 on a machine with 2"),
        ({"NPROC_PER_NODE": "0"}, 0, "NPROC_PER_NODE must be a number from 1"),
        ({"NNODES": "2"}, 0, "NNODES=2 needs NODE_RANK, MASTER_ADDR, MASTER_PORT"),
        (NODES | {"NODE_RANK": "2"}, 0, "NODE_RANK=2 of NNODES=2"),
        ({"RDZV_ID": "x"}, 0, "torchrun ... -m tunesmith train 'my run.yaml'"),
    ],
)
def test_variables_that_do_not_fit(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], n_devices: int, words: str
) -> None:
    with pytest.raises(EnvironmentValueError, match=words.replace("(", "\\(").replace("...", "\\.\\.\\.")):
        planned(monkeypatch, variables, n_devices)


def test_what_a_process_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    told = planned(monkeypatch, NODES, 4).variables(3)
    assert (told["RANK"], told["LOCAL_RANK"], told["WORLD_SIZE"], told["LOCAL_WORLD_SIZE"]) == ("7", "3", "8", "4")
    assert (told["MASTER_ADDR"], told["MASTER_PORT"]) == ("10.0.0.1", "29500")


@pytest.fixture
def start(tmp_path: Path, tiny_model_dir: str) -> Callable[..., subprocess.Popen[str]]:
    """Starts `tunesmith train` in two processes; the folder's name has a blank."""
    data = tmp_path / "my data"
    data.mkdir()
    rows = [{"instruction": "who are you" + " fox" * (i % 7), "output": f"I am a model {i}"} for i in range(40)]
    (data / "rows.json").write_text(json.dumps(rows))
    (data / "dataset_info.json").write_text(json.dumps({"rows": {"file_name": "rows.json"}}))
    keys = {
        "model_name_or_path": tiny_model_dir, "template": "chatml", "stage": "sft", "do_train": True,
        "finetuning_type": "lora", "dataset_dir": data, "dataset": "rows", "learning_rate": 1e-2,
        "max_steps": STEPS, "save_steps": 1000, "logging_steps": 1, "per_device_train_batch_size": 2,
    }  # fmt: skip

    def begin(name: str, processes: int = 2, **changes: Any) -> subprocess.Popen[str]:
        words = [f"{key}={value}" for key, value in {**keys, "output_dir": tmp_path / name, **changes}.items()]
        return subprocess.Popen(
            [sys.executable, "-m", "tunesmith", "train", *words],
            env=env.with_values({"NPROC_PER_NODE": str(processes), "TUNESMITH_HOME": str(tmp_path / "home")}),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )

    return begin


def ended(process: subprocess.Popen[str]) -> tuple[int, str]:
    try:
        _, said = process.communicate(timeout=240)
    finally:
        process.kill()
    return process.returncode, said


def children_at_work(process: subprocess.Popen[str], folder: Path) -> list[psutil.Process]:
    """The processes of a run, once it has made a step."""
    log = folder / "trainer_log.jsonl"
    until = time.monotonic() + 240
    while not (log.is_file() and log.read_text()):
        assert process.poll() is None, ended(process)[1]
        assert time.monotonic() < until
        time.sleep(0.02)
    return sorted(psutil.Process(process.pid).children(), key=lambda child: child.pid)


def digest(folder: Path) -> str:
    return hashlib.sha256((folder / "adapter_model.safetensors").read_bytes()).hexdigest()


def losses(folder: Path) -> list[float]:
    entries = map(json.loads, (folder / "trainer_log.jsonl").read_text().splitlines())
    return [entry["loss"] for entry in entries if "loss" in entry]


def test_they_stop_at_one_step_and_go_on_to_the_same_bytes(start: Any, tmp_path: Path) -> None:
    """The signal reaches the second process alone; the end is that of a run left in peace, and of one process."""
    stopped = start("stopped")
    children_at_work(stopped, tmp_path / "stopped")[1].send_signal(signal.SIGTERM)
    code, said = ended(stopped)
    state = read_state(tmp_path / "stopped")
    assert (code, state and state.state) == (128 + signal.SIGTERM, "stopped"), said
    assert state
    assert 0 < state.step < STEPS
    assert said.count(f"stopped at step {state.step} of {STEPS}; checkpoint written") == 1
    assert ended(start("stopped"))[0] == 0
    assert ended(start("whole"))[0] == 0
    assert digest(tmp_path / "stopped") == digest(tmp_path / "whole")
    assert ended(start("alone", processes=1, per_device_train_batch_size=4))[0] == 0
    assert losses(tmp_path / "alone") == pytest.approx(losses(tmp_path / "whole"), abs=1e-4)


def test_when_one_is_killed_the_others_end_and_the_cause_is_told(start: Any, tmp_path: Path) -> None:
    run = start("killed", max_steps=100_000)
    children = children_at_work(run, tmp_path / "killed")
    children[1].kill()
    code, said = ended(run)
    assert code == 128 + signal.SIGKILL
    assert "error: process 1 of 2 (counted from 0) was killed by SIGKILL" in said
    assert "Traceback" not in said
    assert not any(child.is_running() for child in children)
    state = read_state(tmp_path / "killed")
    assert state
    assert (state.state, state.reason.splitlines()[0]) == ("failed", said.splitlines()[-1].removeprefix("error: "))


def test_a_mistake_is_told_once(start: Any, tmp_path: Path) -> None:
    (tmp_path / "my data" / "rows.json").write_text('[{"instruction": "who", "output": 5}]')
    code, said = ended(start("bad"))
    assert code == 2
    assert said.count("error:") == 1


def commands(model: str, out: Path, per_device: int) -> list[list[str]]:
    keys = {
        "model_name_or_path": model, "template": "chatml", "do_train": True, "dataset_dir": Path("data").resolve(),
        "max_steps": 3, "logging_steps": 1, "learning_rate": 1e-3, "cutoff_len": 64, "max_samples": 20,
        "per_device_train_batch_size": per_device, "save_strategy": "no",
    }  # fmt: skip
    return [
        ["train", *(f"{key}={value}" for key, value in {**keys, **stage, "output_dir": out / name}.items())]
        for name, stage in STAGES.items()
    ]


def run_all(words: list[list[str]]) -> None:
    """What each process does: one command after the other."""
    from tunesmith.cli.main import main

    for command in words:
        status = main(command)
        assert status == 0, command


def test_every_stage_learns_what_one_process_learns(
    tmp_path: Path, tiny_tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TUNESMITH_HOME", str(tmp_path / "home"))
    model = str(tmp_path / "untied")
    make_tiny_llama(tie_word_embeddings=False).save_pretrained(model)
    tiny_tokenizer.save_pretrained(model)
    run_all(commands(model, tmp_path / "one", 4))
    pair = planned(monkeypatch, {"NPROC_PER_NODE": "2"}, 0)
    words = json.dumps(commands(model, tmp_path / "two", 2))
    root = Path(__file__).parents[2]
    processes = [
        subprocess.Popen(
            [sys.executable, "-m", "tests.recipes.test_launch", words],
            env=env.with_values(pair.variables(rank) | {"PYTHONPATH": f"{root / 'src'}:{root}"}),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    for code, said in [ended(process) for process in processes]:
        assert code == 0, said[-3000:]
    for name in STAGES:
        one, two = losses(tmp_path / "one" / name), losses(tmp_path / "two" / name)
        assert len(one) == 3, name
        assert one == pytest.approx(two, rel=1e-5, abs=1e-7), name


if __name__ == "__main__":
    run_all(json.loads(sys.argv[1]))
