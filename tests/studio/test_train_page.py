"""The studio in real Chromium over real runs of a tiny model: start, watch, reload, stop, resume, deaths, the queue."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.studio.server import Server, studio
from tests.studio.window import FORM, STATE, Window

from tunesmith.core.run_state import read_state
from tunesmith.core.runs import Run

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def server(root: Path) -> Iterator[Server]:
    with studio(root) as started:
        yield started


@pytest.fixture
def opened(browser: Any, server: Server, shots: Path) -> Iterator[Callable[..., Window]]:
    contexts = []

    def make(width: int = 1280, height: int = 720) -> Window:
        context = browser.new_context(viewport={"width": width, "height": height})
        contexts.append(context)
        return Window(context.new_page(), server.url, shots)

    yield make
    for context in contexts:
        context.close()


def test_a_newcomers_path(opened: Callable[..., Window], root: Path) -> None:
    window = opened()
    window.fill(**FORM | {"output_dir": "saves/first", "num_train_epochs": "20000"})
    window.page.click("#train-preview")
    window.page.wait_for_selector("#train-yaml .cm-content")
    assert "output_dir=saves/first" in window.text("#train-command")
    assert "num_train_epochs: 20000" in window.text("#train-yaml")
    window.page.click("#train-start")
    window.until(lambda: window.state == "running" and window.points() > 3)
    assert "step" in window.text(f"{STATE} .facts")
    assert (root / "saves/first/llamaboard_config.yaml").is_file()
    window.keep("running")
    window.until(lambda: window.active() == ["stop"])

    window.open()  # a reload in the middle: the same run, the whole curve, what was typed
    window.until(lambda: window.state == "running" and window.points() > 3)
    assert window.text(f"{STATE} .name") == "saves/first"
    assert window.field("learning_rate") == "1e-3"
    second = opened()  # another browser shows the same
    second.until(lambda: second.state == "running" and second.points() > 3)

    window.page.click("#train-stop")
    window.until(lambda: window.state == "stopped")
    window.until(lambda: window.active() == ["resume"])
    assert "goes on from checkpoint-" in window.text("#train-why")
    second.until(lambda: second.state == "stopped")
    stopped = read_state(root / "saves/first")
    assert stopped is not None
    assert (root / f"saves/first/checkpoint-{stopped.step}").is_dir()
    window.page.click("#train-resume")
    window.until(lambda: window.state == "running")
    window.until(lambda: window.step > stopped.step)
    window.page.click("#train-stop")
    window.until(lambda: window.state == "stopped")
    assert max(int(event.get("step", 0)) for event in Run(root / "saves/first").events()) > stopped.step
    assert window.errors == second.errors == []


def test_what_is_wrong_is_said_and_nothing_is_started(opened: Callable[..., Window], root: Path) -> None:
    window = opened()
    window.fill(**FORM, output_dir="saves/wrong", lora_rank="many")
    window.page.click("#train-start")
    window.page.wait_for_selector("text=lora_rank takes a whole number")
    assert not (root / "saves/wrong").exists()
    window.fill(lora_rank="4", output_dir="/tmp/elsewhere")
    window.page.click("#train-check")
    window.page.wait_for_selector("text=outside the workspace")
    assert window.errors == []


def test_a_killed_trainer_is_seen_within_five_seconds(opened: Callable[..., Window], root: Path) -> None:
    window = opened()
    window.fill(**FORM | {"output_dir": "saves/killed", "num_train_epochs": "20000"})
    window.page.click("#train-start")
    window.until(lambda: window.state == "running" and window.points() > 2)
    state = read_state(root / "saves/killed")
    assert state is not None
    os.kill(state.pid, signal.SIGKILL)
    assert window.until(lambda: window.state == "failed") < 5
    assert "SIGKILL" in window.text(f"{STATE} .reason") or "gone" in window.text(f"{STATE} .reason")
    assert window.page.locator(f"{STATE} .lines td").count() > 2
    window.keep("failed")


def test_a_killed_page_server_takes_no_run_along(browser: Any, root: Path) -> None:
    context = browser.new_context()
    with studio(root) as first:
        window = Window(context.new_page(), first.url)
        window.fill(**FORM | {"output_dir": "saves/alone", "num_train_epochs": "20000"})
        window.page.click("#train-start")
        window.until(lambda: window.state == "running" and window.points() > 2)
        first.kill()
    window.page.wait_for_selector(f"{STATE}.is-away")
    state = read_state(root / "saves/alone")
    assert state is not None
    assert state.state == "running"
    with studio(root) as again:
        fresh = Window(context.new_page(), again.url)
        fresh.until(lambda: fresh.state == "running" and fresh.points() > 2)
        assert fresh.text(f"{STATE} .name") == "saves/alone"
        fresh.page.click("#train-stop")
        fresh.until(lambda: fresh.state == "stopped")
    context.close()


def test_runs_are_compared_and_cloned(opened: Callable[..., Window], root: Path) -> None:
    window = opened()
    window.fill(**FORM | {"output_dir": "saves/short", "num_train_epochs": "2"})
    window.page.click("#train-start")
    window.until(lambda: window.state == "finished")
    window.until(lambda: window.active() == [])
    assert "finished" in window.text("#train-why")
    window.page.click("#tab-runs-button")
    box = window.page.locator("#runs-list [data-folder='saves/short'] input")
    assert window.active("runs") == []
    box.click()
    window.page.wait_for_selector("#runs-why:has-text('finished')")
    window.page.locator("#runs-list [data-folder='saves/killed'] input").click()
    window.until(lambda: window.active("runs") == ["resume"])
    window.page.locator("#runs-list [data-folder='saves/killed'] input").click()
    window.until(lambda: window.active("runs") == [])
    window.page.click("#runs-clone button")
    window.page.fill("#runs-output textarea, #runs-output input", "saves/sweep")
    window.page.fill("#runs-changes textarea", "learning_rate=1e-4,1e-2")
    window.page.click("#runs-sweep_button")
    names = ("learning_rate=1e-4", "learning_rate=1e-2")
    window.until(lambda: all(_is_finished(root / "saves/sweep" / name) for name in names))
    for name in names:
        window.page.locator(f"#runs-list input[data-folder='saves/sweep/{name}']").click()
    window.page.click("#runs-compare")
    window.page.wait_for_selector("#runs-beside [data-curve=loss]")
    window.until(lambda: window.page.locator("#runs-beside [data-curve=loss] path.curve").count() == 3)
    assert "learning_rate" in window.text("#runs-beside")
    window.keep("runs")
    window.page.click("#runs-to_form")
    window.page.wait_for_selector("#runs-said strong")
    window.page.click("#tab-train-button")
    assert float(window.field("learning_rate")) == 1e-2
    assert window.errors == []


def _is_finished(folder: Path) -> bool:
    state = read_state(folder)
    return state is not None and state.state == "finished"


def test_the_keyboard_and_a_phone_are_enough(opened: Callable[..., Window]) -> None:
    window = opened(390, 844)
    assert window.page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
    window.page.focus("#train-form [name=model_name_or_path]")
    window.page.keyboard.type("tiny")
    for _ in range(40):  # Tab goes from field to field, in the order of the page
        window.page.keyboard.press("Tab")
        if window.page.evaluate("document.activeElement.name") == "learning_rate":
            break
    window.page.keyboard.press("Control+A")
    window.page.keyboard.type("2e-4")
    assert (window.field("model_name_or_path"), window.field("learning_rate")) == ("tiny", "2e-4")
    for _ in range(120):
        window.page.keyboard.press("Tab")
        if window.page.evaluate("document.activeElement.id") == "train-check":
            break
    window.page.keyboard.press("Enter")
    window.page.wait_for_selector("text=dataset")
    unnamed = """[...document.querySelectorAll('#train-form input, #train-form select, #train-form textarea')]
        .filter(node => !(node.labels?.length || node.getAttribute('aria-label'))).map(node => node.name)"""
    assert window.page.evaluate(unnamed) == []


CONTRAST = """(places) => places.map(place => {
  const clear = /rgba\\(0, 0, 0, 0\\)|transparent/;
  const part = (v) => v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4;
  const light = (text) => {
    const [r, g, b] = text.match(/[\\d.]+/g).map(v => part(Number(v) / 255));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const node = document.querySelector(place);
  let back = node;
  while (back && clear.test(getComputedStyle(back).backgroundColor)) back = back.parentElement;
  const ground = back ? getComputedStyle(back).backgroundColor : 'rgb(255, 255, 255)';
  const [a, b] = [light(getComputedStyle(node).color), light(ground)];
  return (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
})"""
"""Contrast of the words at some places to what is behind them, as WCAG measures it."""


def test_words_stand_out_from_their_ground(opened: Callable[..., Window]) -> None:
    window = opened()
    places = ["#train-form .help", "#train-form label", "#train-form code", "#train-live .badge", "#train-start"]
    assert all(ratio >= 4.4 for ratio in window.page.evaluate(CONTRAST, places))


def test_the_language_is_switched_and_the_search_finds_chinese(opened: Callable[..., Window]) -> None:
    window = opened()
    window.page.click("#studio-language label:nth-child(2)")
    window.page.wait_for_selector("#train-start:has-text('开始')")
    window.until(lambda: "学习率" in window.text("#train-form"))
    window.page.click("#train-form details.advanced > summary")
    window.page.fill("#train-form .find", "权重衰减")
    window.until(lambda: window.page.locator("#train-form [data-key=weight_decay]").is_visible())
    assert not window.page.locator("#train-form [data-key=galore_rank]").is_visible()
    window.keep("chinese")


def test_the_whole_schema_is_on_the_page(opened: Callable[..., Window]) -> None:
    from tunesmith.config.schema import KEYS

    window = opened()
    find = "[...document.querySelectorAll('#train-form [data-key]')].map(node => node.dataset.key)"
    assert "learning_rate" in window.page.evaluate(find)
    assert "galore_rank" not in window.page.evaluate(find), "made when its group is opened"
    window.page.evaluate("document.querySelectorAll('#train-form details').forEach(one => { one.open = true })")
    window.until(lambda: len(window.page.evaluate(find)) == len(KEYS))
    assert set(window.page.evaluate(find)) == set(KEYS)
    assert (
        window.page.evaluate("performance.timing.domContentLoadedEventEnd - performance.timing.navigationStart")
        < 20_000
    )
