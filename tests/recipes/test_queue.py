"""The queue: runs wait for each other, every end is explained, and nobody's death loses a run."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tunesmith.config.load import load_config
from tunesmith.core.errors import ConfigError, TrainingError, TunesmithError
from tunesmith.core.run_state import read_state
from tunesmith.core.runs import Run, is_locked
from tunesmith.recipes import queue
from tunesmith.recipes.queue import QUEUED_CONFIG, enqueue, ensure_worker, waiting, work, worker_lock
from tunesmith.recipes.runs import clone, differences, load_resolved, resume, state_of, stop, sweep, wait

TRAINER = """
import sys, time, yaml
from pathlib import Path
from tunesmith.core.runs import Run
command = " ".join(sys.argv[1:3]) if sys.argv[1] == "data" else sys.argv[1]
file = next(word for word in sys.argv if word.endswith(".yaml"))
config = yaml.safe_load(open(file))
kind = config.get("run_name") or "other"
if kind == "refused":
    print("error: there is no model", file=sys.stderr)
    sys.exit(2)
run = Run(Path(file).parent)
if command != "train":
    with run.working(command):
        run.progress(1, 3, "questions")
        run.progress(3, 3, "questions: 50 % right")
    sys.exit()
with run.working(command):
    run.emit("train_begin", step=0, total_steps=2)
    print("step 1", flush=True)
    if kind == "killed":
        import os
        os.kill(os.getpid(), 9)
    if kind == "broken":
        raise ValueError("no")
    if kind == "slow":
        time.sleep(60)
    run.emit("log", step=2, total_steps=2, loss=1.5)
"""
"""Stands for `tunesmith`: it works in its directory and ends as `run_name` says."""


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    trainer = tmp_path / ".trainer.py"
    trainer.write_text(TRAINER)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(queue, "PROGRAM", [sys.executable, str(trainer)])
    (tmp_path / "base.yaml").write_text(
        "model_name_or_path: smollm2-135m\ndataset: identity\ntemplate: auto\ndo_train: true\noutput_dir: saves/base\n"
    )
    return tmp_path


def put(name: str, kind: str = "fine") -> Path:
    return enqueue(Path(), ["base.yaml", f"output_dir=saves/{name}", f"run_name={kind}"], start=False)


def test_a_queue_with_failures_ends_with_all_explained(workspace: Path) -> None:
    kinds = ["fine", "refused", "fine", "killed", "broken", "fine"]
    for place, kind in enumerate(kinds):
        put(f"{place}", kind)
    assert [run.folder.name for run in waiting(Path())] == [str(place) for place in range(6)]
    assert work(Path()) == 6
    found = [read_state(Path(f"saves/{place}")) for place in range(6)]
    assert [run.state for run in found if run] == ["finished", "failed", "finished", "failed", "failed", "finished"]
    reasons = [run.reason for run in found if run and run.state == "failed"]
    assert reasons[0] == "there is no model"
    assert "SIGKILL" in reasons[1]
    assert reasons[2] == "ValueError: no"


def test_the_worker_runs_apart_and_its_death_loses_nothing(workspace: Path) -> None:
    put("slow", "slow")
    put("next")
    code = f"from tunesmith.recipes import queue; queue.PROGRAM = {queue.PROGRAM!r}; queue.work(queue.Path())"
    first = subprocess.Popen([sys.executable, "-c", code])
    until(lambda: _state("slow") == "running")
    first.kill()
    first.wait()
    assert _state("slow") == "running"
    second = subprocess.Popen([sys.executable, "-c", code])
    until(lambda: is_locked(worker_lock(Path())))
    assert _state("next") == "queued"
    stop(state_of("slow", Path()), now=True)
    second.wait(20)
    assert _state("slow") == "stopped"
    assert _state("next") == "finished"


def until(test: object, seconds: float = 20) -> None:
    end = time.monotonic() + seconds
    while not test():  # type: ignore[operator]
        assert time.monotonic() < end
        time.sleep(0.05)


def _state(name: str) -> str:
    found = read_state(Path("saves") / name)
    return found.state if found else "none"


def test_a_wrong_configuration_is_refused_before_it_waits(workspace: Path) -> None:
    with pytest.raises(ConfigError, match="lora_rank"):
        enqueue(Path(), ["base.yaml", "lora_rank=-1"])
    assert not Path("saves").exists()


def test_secrets_are_not_written_into_the_queue(workspace: Path) -> None:
    with pytest.raises(ConfigError, match="HF_TOKEN"):
        enqueue(Path(), ["base.yaml", "hf_hub_token=abc"])


def test_what_the_environment_says_may_wait(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("API_KEY", "sk-verysecret")
    monkeypatch.setenv("BASE_URL", "http://127.0.0.1:9/v1")
    monkeypatch.setenv("MODEL", "m")
    (workspace / "long.txt").write_text("A text.")
    folder = enqueue(Path(), ["input_file_path=long.txt", "output_dir=made"], start=False, command="data make")
    assert not any(b"verysecret" in file.read_bytes() for file in folder.iterdir())


def test_a_folder_in_use_is_refused(workspace: Path) -> None:
    put("one")
    with pytest.raises(TrainingError, match="a run is queued there"):
        put("one")


def test_stop_takes_a_waiting_run_out_of_the_queue(workspace: Path) -> None:
    put("one")
    stop(state_of("one", Path()))
    assert _state("one") == "cancelled"
    assert work(Path()) == 0
    with pytest.raises(TrainingError, match="nothing to stop"):
        stop(state_of("one", Path()))


def test_resume_and_clone_queue_the_same_configuration(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(queue, "ensure_worker", lambda root: None)
    put("one", "broken")
    work(Path())
    (workspace / "saves" / "one" / "checkpoint-4").mkdir()
    resume(state_of("one", Path()), Path())
    text = (workspace / "saves" / "one" / QUEUED_CONFIG).read_text()
    assert "resume_from_checkpoint: true" in text
    assert "run_name: broken" in text
    clone(state_of("one", Path()), Path(), "saves/two", ["learning_rate=3e-4", "run_name=fine"])
    assert {run.folder.name for run in waiting(Path())} == {"one", "two"}
    found = differences([load_resolved(one) for one in [Path("saves/one"), Path("saves/two")]])
    assert found == {"learning_rate": [5e-5, 3e-4]}


def test_a_sweep_queues_every_combination_or_nothing(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(queue, "ensure_worker", lambda root: None)
    with pytest.raises(ConfigError):
        sweep(Path(), ["base.yaml"], {"lora_rank": ["8", "none_such"]})
    assert not waiting(Path())
    folders = sweep(Path(), ["base.yaml"], {"lora_rank": ["4", "8"], "learning_rate": ["1e-4", "2e-4"]})
    assert len(set(folders)) == 4 == len(waiting(Path()))


def test_names_of_runs(workspace: Path) -> None:
    put("alpha")
    put("beta")
    assert state_of("alpha", Path()).folder == Path("saves/alpha")
    with pytest.raises(TunesmithError, match="did you mean alpha"):
        state_of("alpah", Path())


def test_ensure_worker_starts_one_that_trains_and_ends(workspace: Path) -> None:
    Run(Path("saves/one")).emit("queued")  # without a configuration: the real command refuses it
    ensure_worker(Path())
    until(lambda: _state("one") == "failed", 60)
    state = wait(state_of("one", Path()), 1)
    assert QUEUED_CONFIG in state.reason


def test_other_work_waits_in_the_same_queue(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(queue, "ensure_worker", lambda root: None)
    model = "model_name_or_path=smollm2-135m"
    (workspace / "long.txt").write_text("A text.")
    put("trained")
    folders = [
        enqueue(Path(), [model, "task=mmlu_test", "template=fewshot", "save_dir=saves/asked"], command="eval"),
        enqueue(Path(), [model, "template=chatml", "export_dir=models/merged"], command="export"),
        enqueue(Path(), [model, "input_file_path=long.txt", "output_dir=made"], command="data make"),
    ]
    assert [str(folder) for folder in folders] == ["saves/asked", "models/merged-export", "made"]
    predict = ["do_train=false", "do_predict=true", "predict_with_generate=true", "eval_dataset=identity"]
    enqueue(Path(), ["base.yaml", *predict, "output_dir=saves/predicted"])
    assert [run.command for run in waiting(Path())] == ["train", "eval", "export", "data make", "predict"]
    assert work(Path()) == 5
    found = [read_state(folder) for folder in folders]
    assert [(run.state, run.command, run.step, run.total_steps) for run in found if run] == [
        ("finished", command, 3, 3) for command in ("eval", "export", "data make")
    ]
    assert not Path("models/merged").exists(), "what the queue notes stands beside it"
    clone(state_of("asked", Path()), Path(), "saves/again", ["n_shot=1"])
    resume(state_of("merged-export", Path()), Path())
    assert [(run.folder.name, run.command) for run in waiting(Path())] == [
        ("again", "eval"),
        ("merged-export", "export"),
    ]


def test_what_was_not_set_stays_so(workspace: Path) -> None:
    (workspace / "long.txt").write_text("A text.")
    words = ["model_name_or_path=smollm2-135m", "input_file_path=long.txt", "output_dir=made"]
    folder = enqueue(Path(), words, start=False, command="data make")
    loaded = load_config([str(folder / QUEUED_CONFIG)], "data make")
    assert loaded.explicit == {"model_name_or_path", "input_file_path", "output_dir"}


def test_what_cannot_wait(workspace: Path) -> None:
    with pytest.raises(TrainingError, match="chat cannot wait"):
        enqueue(Path(), ["base.yaml"], command="chat")
    with pytest.raises(ConfigError, match="save_dir is missing"):
        enqueue(Path(), ["model_name_or_path=m", "template=fewshot", "task=mmlu_test"], command="eval")


def test_a_run_that_is_stopping_gets_no_second_signal(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    signals: list[int] = []
    monkeypatch.setattr(os, "kill", lambda pid, number: signals.append(number))
    run = Run(workspace / "saves" / "one")
    with run.working("train"):
        run.emit("train_begin", step=0, total_steps=9)
        assert "checkpoint" in stop(state_of("one", Path()))
        assert "stopping already" in stop(state_of("one", Path()))
        assert signals == [signal.SIGTERM]  # a second one would end it without the checkpoint
        stop(state_of("one", Path()), now=True)
        assert signals == [signal.SIGTERM, signal.SIGKILL]
