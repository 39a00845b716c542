"""A newcomer's path through `tunesmith webui` on the real 135M model, in Chromium; each station leaves a screenshot."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.studio.conftest import Shown, Tab
from tests.studio.conftest import browser as browser
from tests.studio.conftest import shots as shots
from tests.studio.server import Server, studio
from tests.studio.window import STATE, Window

from tunesmith.core.run_state import curves, find_runs, read_state
from tunesmith.recipes.runs import stop

pytestmark = [pytest.mark.e2e, pytest.mark.slow]

STEPS = 48
RUN = "saves/identity"
SET = {
    "output_dir": RUN,
    "cutoff_len": "128",
    "max_samples": "20",
    "learning_rate": "1e-3",
    "max_steps": str(STEPS),
    "per_device_train_batch_size": "1",
    "gradient_accumulation_steps": "1",
    "logging_steps": "1",
}
"""What the newcomer types beside model and data set: little work, every step in the curve."""
QUESTION = "Who are you?"


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """An empty workspace; what still runs in it at the end is ended."""
    folder = tmp_path_factory.mktemp("studio") / "tunes"
    folder.mkdir()
    yield folder
    for run in find_runs(folder):
        if run.is_active:
            stop(run, now=True)


@pytest.fixture(scope="module")
def server(root: Path) -> Iterator[Server]:
    with studio(root) as started:
        yield started


def test_a_newcomers_path(browser: Any, server: Server, root: Path, shots: Path) -> None:
    contexts = [browser.new_context(viewport={"width": 1280, "height": 860}) for _ in range(2)]
    window = Window(contexts[0].new_page(), server.url, shots)
    look_at_the_data(window)
    fill_and_preview(window)
    start_and_watch(window)
    reload_in_the_middle(window)
    second = Window(contexts[1].new_page(), server.url, shots)
    see_the_same(second)
    stopped = stop_in_the_middle(window, second, root)
    resume_and_finish(window, second, root, stopped)
    answer = chat_with_it(window)
    export_it(window, root)
    assert answer in ask_in_the_terminal(root), "the merged model answers as the page did"
    assert window.errors == second.errors == []
    for context in contexts:
        context.close()


def look_at_the_data(window: Window) -> None:
    """The embedded model and the data set identity are what the tab Data begins with."""
    tab = Tab(window.page)
    tab.press("Data")
    assert window.page.input_value("#data-model input") == "smollm2-135m"
    assert window.page.input_value("#data-dataset input") == "identity"
    window.page.click("#data-show")
    window.page.wait_for_selector("#data-shown .ts-tokens")
    trained = "".join(window.page.locator("#data-shown .ts-row:first-of-type .ts-tokens i.on").all_inner_texts())
    read = "".join(window.page.locator("#data-shown .ts-row:first-of-type .ts-tokens i:not(.on)").all_inner_texts())
    assert trained.startswith("Hi there! I'm {{name}}")
    assert "<|im_end|>" in trained, "it learns to stop, too"
    assert "user" in read
    window.keep("data")


def fill_and_preview(window: Window) -> None:
    tab = Tab(window.page)
    tab.press("Train")
    window.fill(model_name_or_path="smollm2-135m", **SET)
    window.page.select_option("#train-form [data-key=dataset] select.adder", "identity")
    assert window.field("dataset") == "identity"
    window.page.click("#train-check")
    window.page.wait_for_selector("text=This can be trained.")
    window.page.click("#train-preview")
    window.page.wait_for_selector("#train-yaml .cm-content")
    assert "tunesmith train" in window.text("#train-command")
    assert "model_name_or_path=smollm2-135m" in window.text("#train-command")
    assert "learning_rate: 0.001" in window.text("#train-yaml")
    window.keep("preview")


def start_and_watch(window: Window) -> None:
    window.page.click("#train-start")
    window.until(lambda: window.state == "running" and window.points() > 3)
    assert f"/ {STEPS}" in window.text(f"{STATE} .facts")
    window.keep("train")


def reload_in_the_middle(window: Window) -> None:
    before = window.points()
    window.open()
    window.until(lambda: window.state == "running" and window.points() >= before)
    assert window.text(f"{STATE} .name") == RUN
    assert window.field("dataset") == "identity"
    assert window.field("max_steps") == str(STEPS)


def see_the_same(second: Window) -> None:
    """Another browser, where nothing was typed."""
    second.until(lambda: second.state == "running" and second.points() > 3)
    assert second.text(f"{STATE} .name") == RUN
    assert second.points() >= second.step - 1, "the whole curve, from the first step on"


def stop_in_the_middle(window: Window, second: Window, root: Path) -> int:
    window.page.click("#train-stop")
    window.until(lambda: window.state == "stopped")
    second.until(lambda: second.state == "stopped")
    state = read_state(root / RUN)
    assert state is not None
    assert 3 < state.step < STEPS
    assert (root / RUN / f"checkpoint-{state.step}" / "adapter_model.safetensors").is_file()
    assert "a checkpoint was written" in window.text(f"{STATE} .reason")
    return state.step


def resume_and_finish(window: Window, second: Window, root: Path, stopped: int) -> None:
    before = curves(root / RUN)["loss"]
    assert [step for step, _ in before] == list(range(1, stopped + 1))
    window.page.click("#train-resume")
    window.until(lambda: window.state == "running" and window.step > stopped)
    assert window.points() > stopped, "the curve goes on; it does not begin anew"
    window.until(lambda: window.step > STEPS * 2 // 3)
    window.page.locator("#train-form [data-key=warmup_steps]").scroll_into_view_if_needed()
    window.keep("resumed")
    window.until(lambda: window.state == "finished")
    second.until(lambda: second.state == "finished")
    after = curves(root / RUN)["loss"]
    assert after[:stopped] == before
    assert [step for step, _ in after] == list(range(1, STEPS + 1))
    assert window.points() == second.points() == STEPS
    losses = [loss for _, loss in after]
    assert sum(losses[-10:]) < 0.6 * sum(losses[:10])
    assert (root / RUN / "adapter_model.safetensors").is_file()
    window.keep("finished")


def chat_with_it(window: Window) -> str:
    tab, shown = Tab(window.page), Shown(window.page)
    tab.press("Chat")
    tab.choose("chat-run", RUN)
    window.page.click("#chat-load")
    tab.until(lambda: f"{RUN} is loaded" in shown.status)
    tab.fill("chat-temperature", "0")
    tab.fill("chat-max_new_tokens", "40")
    shown.ask(QUESTION)
    answer = str(window.page.locator("#chat-window .message.bot").last.inner_text()).strip()
    assert "{{name}}" in answer, "the name of the data set was learned"
    window.keep("chat")
    window.page.click("#chat-unload")
    tab.until(lambda: "No model is loaded" in shown.status)
    return answer


def export_it(window: Window, root: Path) -> None:
    tab = Tab(window.page)
    tab.press("Export")
    tab.choose("export-run", RUN)
    tab.fill("export-export_dir", "models/mine")
    window.page.click("#export-start")
    tab.until(lambda: "Export: finished" in tab.text("export-panel"), 300)
    tab.until(lambda: "largest difference of a logit" in tab.text("export-report"))
    assert (root / "models" / "mine" / "model.safetensors").is_file()
    window.keep("export")


def ask_in_the_terminal(root: Path) -> str:
    """What `tunesmith chat` prints over what was exported."""
    words = ["model_name_or_path=models/mine", "template=auto", "do_sample=false", "max_new_tokens=40"]
    command = [sys.executable, "-m", "tunesmith", "chat", *words]
    done = subprocess.run(command, input=f"{QUESTION}\nexit\n", capture_output=True, text=True, check=True, cwd=root)
    return done.stdout
