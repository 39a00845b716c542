"""The run directory: events, the lock that dies with its process, and what state follows from both."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tunesmith.core.errors import Interrupted, TrainingError
from tunesmith.core.run_state import curves, find_runs, last_lines, read_state
from tunesmith.core.runs import LOG_FILE, Lock, Run, is_locked


def test_a_torn_line_is_passed_over_and_closed(tmp_path: Path) -> None:
    run = Run(tmp_path)
    run.emit("start")
    with run.events_path.open("ab") as handle:
        handle.write(b'{"event": "lo')
    run.emit("log", step=1)
    assert [event["event"] for event in run.events()] == ["start", "log"]


def test_a_lock_is_had_by_one_and_given_back(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    first, second = Lock(path), Lock(path)
    assert first.take()
    assert is_locked(path)
    assert not second.take()
    first.release()
    assert not is_locked(path)
    assert second.take()
    second.release()


def hold(folder: Path, then: str) -> subprocess.Popen[bytes]:
    """A process that works in a run directory and says when it has it."""
    code = (
        "import sys, time, os\nfrom pathlib import Path\nfrom tunesmith.core.runs import Run\n"
        f"run = Run(Path({str(folder)!r}))\nrun.begin('train')\nrun.emit('train_begin', step=0, total_steps=9)\n"
        f"print('ready', flush=True)\n{then}"
    )
    child = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
    assert child.stdout is not None
    assert child.stdout.readline() == b"ready\n"
    child.stdout.close()
    return child


def test_a_killed_run_shows_failed_and_a_living_one_running(tmp_path: Path) -> None:
    child = hold(tmp_path, "time.sleep(60)")
    state = read_state(tmp_path)
    assert state is not None
    assert (state.state, state.pid, state.total_steps) == ("running", child.pid, 9)
    with pytest.raises(TrainingError, match=f"another process \\({child.pid}\\)"):
        Run(tmp_path).begin("train")
    child.kill()
    child.wait()
    state = read_state(tmp_path)
    assert state is not None
    assert state.state == "failed"
    assert "without a word" in state.reason
    Run(tmp_path).begin("train")


def test_a_forked_child_that_outlives_the_run_does_not_keep_it_alive(tmp_path: Path) -> None:
    child = hold(tmp_path, "if os.fork() == 0: time.sleep(60)\nelse: print(end='')\n")
    child.wait()
    assert not Run(tmp_path).is_alive()
    subprocess.run(["pkill", "-9", "-f", str(tmp_path)], check=False)


@pytest.mark.parametrize(
    ("events", "state", "reason"),
    [
        ([("queued", {})], "queued", ""),
        ([("queued", {}), ("cancelled", {})], "cancelled", "queue"),
        (
            [("queued", {}), ("launched", {"pid": 7}), ("exited", {"pid": 7, "code": 2, "reason": "no model"})],
            "failed",
            "no model",
        ),
        ([("start", {"pid": 7}), ("exited", {"pid": 7, "code": -9})], "failed", "SIGKILL"),
        (
            [("start", {"pid": 7}), ("failed", {"reason": "bad row"}), ("exited", {"pid": 7, "code": 2})],
            "failed",
            "bad row",
        ),
        (
            [("start", {"pid": 7}), ("stop_asked", {}), ("exited", {"pid": 7, "code": -15})],
            "stopped",
            "no checkpoint was written at the end",
        ),
        ([("start", {"pid": 7}), ("stopped", {"step": 4})], "stopped", "at step 4"),
        ([("start", {"pid": 7, "command": "eval"}), ("stopped", {})], "stopped", "answers so far are kept"),
        (
            [
                ("queued", {"command": "export"}),
                ("start", {"pid": 7, "command": "export"}),
                ("stop_asked", {}),
                ("exited", {"pid": 7, "code": -15}),
            ],
            "stopped",
            "nothing was written",
        ),
        ([("start", {"pid": 7}), ("finished", {}), ("exited", {"pid": 7, "code": 0})], "finished", ""),
        (  # stopped and queued again before the queue saw the end of the first process
            [("start", {"pid": 7}), ("stopped", {"step": 3}), ("queued", {}), ("exited", {"pid": 7, "code": 143})],
            "queued",
            "",
        ),
        ([("start", {"pid": 7}), ("finished", {}), ("start", {"pid": 8})], "failed", "without a word"),
    ],
)
def test_the_state_follows_from_the_events(
    tmp_path: Path, events: list[tuple[str, dict[str, object]]], state: str, reason: str
) -> None:
    run = Run(tmp_path)
    for name, fields in events:
        run.emit(name, **fields)
    found = read_state(tmp_path)
    assert found is not None
    assert found.state == state
    assert reason in found.reason
    assert bool(reason) == bool(found.reason)


def test_the_end_of_another_process_is_not_the_end_of_the_run(tmp_path: Path) -> None:
    child = hold(tmp_path, "time.sleep(60)")
    Run(tmp_path).emit("exited", pid=child.pid + 1, code=2)
    state = read_state(tmp_path)
    child.kill()
    child.wait()
    assert state is not None
    assert state.state == "running"


def test_work_notes_how_it_ends(tmp_path: Path) -> None:
    run = Run(tmp_path)
    with run.working("train"):
        assert run.is_alive()
    with pytest.raises(TrainingError), run.working("train"):
        raise TrainingError("no trained token")
    with pytest.raises(Interrupted), run.working("train"):
        raise Interrupted("stopped", signal.SIGTERM)
    with pytest.raises(KeyboardInterrupt), run.working("train"):  # Ctrl-C before training took the signal over
        raise KeyboardInterrupt
    assert not run.is_alive()
    kinds = [event["event"] for event in run.events()]
    assert kinds == ["start", "finished", "start", "failed", "start", "stopped", "start", "stopped"]


def test_curves_count_repeated_steps_once(tmp_path: Path) -> None:
    run = Run(tmp_path)
    run.emit("train_begin", step=0, total_steps=9)
    for step in (1, 2, 3):
        run.emit("log", step=step, loss=float(step), epoch=0.5)
    run.emit("train_begin", step=1, total_steps=9)
    run.emit("log", step=2, loss=20.0)
    assert curves(tmp_path) == {"loss": [(1, 1.0), (2, 20.0)]}


def test_last_lines_show_what_a_bar_showed_last(tmp_path: Path) -> None:
    (tmp_path / LOG_FILE).write_text("begin\nstep 1\rstep 2\rstep 3\n\nend\n")
    assert last_lines(tmp_path) == ["begin", "step 3", "end"]
    assert last_lines(tmp_path, 1) == ["end"]
    assert last_lines(tmp_path / "none") == []


def test_runs_are_found_below_a_folder_and_not_in_checkpoints(tmp_path: Path) -> None:
    for name in ("a/lora/one", "two", ".hidden/three", "two/checkpoint-5", "env/lib/four"):
        Run(tmp_path / name).emit("queued")
        time.sleep(0.002)
    (tmp_path / "env" / "pyvenv.cfg").touch()
    found = [run.folder.relative_to(tmp_path).as_posix() for run in find_runs(tmp_path)]
    assert found == ["two", "a/lora/one"]
    assert os.environ.get("RANK") is None


def test_progress_of_other_work_than_training(tmp_path: Path) -> None:
    run = Run(tmp_path)
    with run.working("eval"):
        for done in range(1, 5):
            run.progress(done, 5, "questions: 50 % right")
        found = read_state(tmp_path)
        assert found is not None
        assert (found.state, found.command, found.step, found.total_steps) == ("running", "eval", 1, 5)
        assert found.doing == "questions: 50 % right"
        run.progress(5, 5)
    found = read_state(tmp_path)
    assert found is not None
    assert (found.state, found.step) == ("finished", 5)
    assert sum(event["event"] == "progress" for event in run.events()) == 2, "at most one a second, and the last"


def test_who_is_interrupted_has_stopped(tmp_path: Path) -> None:
    with pytest.raises(Interrupted), Run(tmp_path).working("data make"):
        raise Interrupted("stopped", 15)
    found = read_state(tmp_path)
    assert found is not None
    assert (found.state, found.reason) == ("stopped", "the answers so far are kept; it can go on")
