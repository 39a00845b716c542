"""What the browser gets of runs, what a form starts, and the queue when some of ten runs fail."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import pytest

from tunesmith.config.schema import RunConfig
from tunesmith.core.errors import TunesmithError
from tunesmith.core.runs import LOG_FILE, Run
from tunesmith.recipes import queue
from tunesmith.studio import start
from tunesmith.studio.form import to_yaml
from tunesmith.studio.shell import checkpoints_of, run_folders
from tunesmith.studio.suggest import suggestions
from tunesmith.studio.views import POINTS, comparison, drawn, run_rows, run_view, thinned
from tunesmith.studio.workspace import Workspace

FORM = {**start.FIRST, "model_name_or_path": "smollm2-135m", "dataset": "identity"}
TRAINER = """
import os, sys, yaml
from pathlib import Path
from tunesmith.core.runs import Run
config = yaml.safe_load(open(sys.argv[2]))
kind = config["run_name"]
if kind == "refused":
    print("error: there is no model", file=sys.stderr)
    sys.exit(2)
run = Run(Path(config["output_dir"]))
with run.working("train"):
    run.emit("train_begin", step=0, total_steps=2)
    if kind == "killed":
        os.kill(os.getpid(), 9)
    if kind == "broken":
        raise ValueError("no")
    run.emit("log", step=2, total_steps=2, loss=1.5)
"""


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(queue, "ensure_worker", lambda root: None)
    return Workspace.at(tmp_path)


def made(folder: Path, steps: int = 3, **facts: object) -> Run:
    run = Run(folder)
    run.emit("start", command="train", pid=0)
    run.emit("train_begin", step=0, total_steps=steps)
    for step in range(1, steps + 1):
        run.emit("log", step=step, total_steps=steps, loss=4.0 / step, learning_rate=1e-3, train_runtime=9.0)
    return run


def test_a_view_says_what_the_directory_says(workspace: Workspace) -> None:
    run = made(Path("saves/a"))
    (run.folder / LOG_FILE).write_text("one\ntwo\n")
    view = run_view(workspace, "saves/a")
    assert view["state"] == "failed"  # no process holds the directory
    assert "gone without a word" in view["reason"]
    assert (view["step"], view["total_steps"], view["lines"]) == (3, 3, ["one", "two"])
    assert list(view["curves"]) == ["loss", "learning_rate"]
    assert view["curves"]["loss"] == [(1, 4.0), (2, 2.0), (3, 4.0 / 3)]
    assert run_view(workspace, "saves/a", view["version"]) == {"same": True}
    run.emit("finished", command="train")
    assert run_view(workspace, "saves/a", view["version"])["state"] == "finished"
    assert run_view(workspace, "saves/none")["state"] == "none"


def test_long_curves_are_thinned_and_keep_their_spikes() -> None:
    points = [(step, 100.0 if step == 5003 else float(step % 7)) for step in range(20_000)]
    kept = thinned(points)
    assert len(kept) <= POINTS
    assert (5003, 100.0) in kept
    assert (kept[0], kept[-1]) == (points[0], points[-1])
    assert kept == sorted(kept)
    assert thinned(points[:10]) == points[:10]


def test_a_long_run_is_shown_fast(workspace: Workspace) -> None:
    lines = [
        f'{{"event": "log", "time": 1.0, "step": {step}, "total_steps": 20000, "loss": 1.5}}' for step in range(20_000)
    ]
    Path("long").mkdir()
    Path("long/events.jsonl").write_text("\n".join(lines) + "\n")
    drawn(Path("long"))
    began = time.process_time()
    drawn(Path("long"))
    assert time.process_time() - began < 0.2


def test_rows_and_folders(workspace: Workspace) -> None:
    made(Path("saves/a")).emit("finished", command="train")
    for step in (5, 20, 100):
        Path(f"saves/a/checkpoint-{step}").mkdir()
    made(Path("saves/b")).emit("queued", config="queued.yaml")
    rows = {row["folder"]: row for row in run_rows(workspace)}
    assert (rows["saves/a"]["state"], rows["saves/b"]["place"]) == ("finished", 1)
    assert [path.name for path in checkpoints_of(Path("saves/a"))] == [
        "checkpoint-100",
        "checkpoint-20",
        "checkpoint-5",
    ]
    assert "saves/a/checkpoint-20" in run_folders(workspace)
    assert "saves/a/checkpoint-20" not in run_folders(workspace, checkpoints=False)


def test_runs_beside_each_other(workspace: Workspace) -> None:
    for name, rank in (("a", 4), ("b", 8)):
        config = RunConfig.from_dict({**FORM, "lora_rank": rank, "output_dir": f"saves/{name}"})
        made(Path(f"saves/{name}"))
        Path(f"saves/{name}/training_args.yaml").write_text(config.to_yaml())
    found = comparison(workspace, ["saves/a", "saves/b"])
    assert found["keys"] == {"lora_rank": ["4", "8"]}
    assert found["labels"] == ["a", "b"]
    assert [line["label"] for line in found["series"]["loss"]] == ["a", "b"]
    assert found["numbers"]["loss"] == [4.0 / 3, 4.0 / 3]


def test_a_start_writes_what_users_know(workspace: Workspace) -> None:
    start.start({**FORM, "output_dir": "saves/x"}, workspace)
    assert start.load("saves/x/llamaboard_config.yaml", workspace) == {**FORM, "output_dir": "saves/x"} | {
        "logging_steps": "5.0", "save_steps": "100.0",
    }  # fmt: skip
    assert start.of_run("saves/x", workspace)["dataset"] == "identity"
    with pytest.raises(TunesmithError, match="a run is queued there"):
        start.start({**FORM, "output_dir": "saves/x"}, workspace)


def test_an_output_folder_is_made_up_where_none_is_named() -> None:
    said = start.with_output({"model_name_or_path": "Org/My Model!", "finetuning_type": "lora"}, now=0)
    assert said["output_dir"].startswith("saves/My-Model/lora/train_19")
    assert start.with_output({"output_dir": "here"})["output_dir"] == "here"


def test_configurations_are_saved_and_loaded(workspace: Workspace) -> None:
    path = start.save(FORM, "configs/mine.yaml", workspace)
    assert path.read_text() == to_yaml(FORM)
    assert to_yaml(start.load("configs/mine.yaml", workspace)) == to_yaml(FORM)
    with pytest.raises(TunesmithError, match="cannot be read"):
        start.load("configs/none.yaml", workspace)


def test_what_a_form_offers(workspace: Workspace) -> None:
    made(Path("saves/a"))
    Path("saves/a/adapter_config.json").write_text("{}")
    offered = suggestions(workspace)
    assert "identity" in offered["dataset"]
    assert offered["model_name_or_path"][0] == "smollm2-135m"
    assert offered["adapter_name_or_path"] == ["saves/a"]
    assert offered["template"][0] == "auto"
    assert suggestions(workspace, "/etc")["dataset"] == []


def test_ten_runs_of_which_three_fail(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = workspace.root / ".trainer.py"
    trainer.write_text(TRAINER)
    monkeypatch.setattr(queue, "PROGRAM", [sys.executable, str(trainer)])
    bad = {2: "refused", 5: "killed", 7: "broken"}
    for place in range(10):
        start.start({**FORM, "run_name": bad.get(place, "fine"), "output_dir": f"saves/{place}"}, workspace)
    assert run_view(workspace, "saves/9")["place"] == 10
    assert queue.work(workspace.root) == 10
    views = [run_view(workspace, f"saves/{place}") for place in range(10)]
    assert [view["state"] for view in views].count("finished") == 7
    reasons = {place: view["reason"] for place, view in enumerate(views) if view["state"] == "failed"}
    assert set(reasons) == set(bad)
    assert reasons[2] == "there is no model"
    assert "SIGKILL" in reasons[5]
    assert reasons[7] == "ValueError: no"
