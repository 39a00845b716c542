"""A queue of ten real runs of a tiny model, three of which fail in three ways; the page's server dies in the middle."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from tests.studio.server import studio
from tests.studio.window import FORM, Window

from tunesmith.core.run_state import RunState, curves, find_runs, last_lines, read_state
from tunesmith.core.runs import Run, is_locked
from tunesmith.recipes.queue import worker_lock
from tunesmith.studio.start import start
from tunesmith.studio.workspace import Workspace

pytestmark = pytest.mark.slow

TINY = {"max_steps": "2", "max_samples": "4", "do_train": "true", "template": "auto"}
FAILING = {
    "unusable": {"dataset": "rows.jsonl"},
    "diverging": {"learning_rate": "1e30", "max_grad_norm": "0", "max_steps": "8"},
    "killed": {"max_steps": "1000000"},
}
NAMES = ["one", "two", "unusable", "three", "killed", "four", "diverging", "five", "six", "seven"]


def form_of(name: str) -> dict[str, str]:
    return FORM | TINY | FAILING.get(name, {}) | {"output_dir": f"saves/{name}"}


def state_of(root: Path, name: str) -> RunState:
    found = read_state(root / "saves" / name)
    assert found is not None
    return found


def until(is_so: Callable[[], bool], seconds: float = 600) -> None:
    end = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < end
        time.sleep(0.1)


def test_ten_runs_three_of_which_fail(browser: Any, root: Path, shots: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(root)
    (root / "rows.jsonl").write_text('{"instruction": "who are you", "output": 5}\nno JSON\n')
    context = browser.new_context(viewport={"width": 1280, "height": 720})
    with studio(root) as first:
        window = Window(context.new_page(), first.url)
        window.fill(**{name: text for name, text in form_of("one").items() if name != "do_train"})
        window.page.click("#train-start")  # the worker is the page's, the others come to it
        window.until(lambda: read_state(root / "saves/one") is not None)
        for name in NAMES[1:]:
            start(form_of(name), Workspace.at(root))
        assert sum(run.state == "queued" for run in find_runs(root)) >= 9
        until(lambda: state_of(root, "two").state == "finished")
        first.kill()

    until(lambda: state_of(root, "killed").state == "running" and state_of(root, "killed").step > 2)
    assert [state_of(root, name).state for name in NAMES] == [
        *("finished", "finished", "failed", "finished", "running", "queued", "queued", "queued", "queued", "queued")
    ]
    os.kill(state_of(root, "killed").pid, signal.SIGKILL)
    until(lambda: not any(run.is_active for run in find_runs(root)))
    until(lambda: not is_locked(worker_lock(root)))

    assert_all_is_told(root)
    assert_one_after_the_other(root)
    with studio(root) as second:
        window = Window(context.new_page(), second.url, shots)
        window.page.click("#tab-runs-button")
        for name in NAMES:
            row = window.page.locator(f"#runs-list tr[data-folder='saves/{name}']")
            assert row.get_attribute("data-run-state") == state_of(root, name).state
            assert row.locator(".why").inner_text().split()[:8] == state_of(root, name).reason.split()[:8]
        window.keep("ten-runs")
    context.close()


def assert_all_is_told(root: Path) -> None:
    """Seven finished with weights and a whole curve, three say why."""
    for name in NAMES:
        state = state_of(root, name)
        assert state.state == ("failed" if name in FAILING else "finished"), (name, last_lines(root / "saves" / name))
        has_weights = (root / "saves" / name / "adapter_model.safetensors").is_file()
        assert has_weights == (name not in FAILING)
        if name not in FAILING:
            assert [step for step, _ in curves(root / "saves" / name)["loss"]] == [1, 2]
    unusable = state_of(root, "unusable").reason
    assert "rows.jsonl, row 1, column output: a number where text is expected" in unusable
    assert "rows.jsonl, row 2: broken JSON" in unusable
    assert "the loss is nan at step" in state_of(root, "diverging").reason
    assert "SIGKILL" in state_of(root, "killed").reason


def assert_one_after_the_other(root: Path) -> None:
    """Each began when the one before it had ended, in the order in which they were queued."""
    spans = []
    for name in NAMES:
        events = {str(event["event"]): float(event["time"]) for event in Run(root / "saves" / name).events()}
        spans.append((events["launched"], events["exited"]))
    assert all(before[1] <= after[0] for before, after in pairwise(spans))
