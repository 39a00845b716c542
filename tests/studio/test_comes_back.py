"""Windows that stay open while the page's server dies and starts again, and a browser that dies; the run goes on."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from tests.studio.conftest import ARGUMENTS, chromium
from tests.studio.server import studio
from tests.studio.window import FORM, STATE, Window

from tunesmith.core.run_state import RunState, curves, read_state
from tunesmith.studio.views import POINTS

pytestmark = pytest.mark.slow

SECONDS = 15
"""Until a window is back, from when the server listens: two to look, the rest to load the page on a busy machine."""
TOKEN = "a-token-of-this-test"
RUN = "saves/long"


@pytest.fixture(scope="module")
def at_work(root: Path) -> RunState:
    """A run that outlasts these tests; no page started it."""
    said = FORM | {"num_train_epochs": "20000", "do_train": "true", "template": "auto", "output_dir": RUN}
    words = [f"{name}={text}" for name, text in said.items()]
    environment = {**os.environ, "TUNESMITH_WORKSPACE": str(root)}
    subprocess.run([sys.executable, "-m", "tunesmith", "runs", "queue", *words], check=True, env=environment)
    return state_now(root)


def state_now(root: Path) -> RunState:
    found = read_state(root / RUN)
    assert found is not None
    return found


class Visits:
    """Counts how often a window loaded."""

    def __init__(self, page: Any) -> None:
        self.count = 0
        page.on("load", self._note)

    def _note(self, page: Any) -> None:
        self.count += 1


def port_of(url: str) -> int:
    port = urlsplit(url).port
    assert port
    return port


def shows_it_whole(window: Window, at_least: int) -> bool:
    """The run at work, with its curve from the first step on."""
    return window.state == "running" and window.step >= at_least and window.points() >= min(at_least, POINTS // 2)


def test_an_open_window_comes_back_with_the_server(browser: Any, root: Path, at_work: RunState) -> None:
    context = browser.new_context()
    page = context.new_page()
    with studio(root, "--token", TOKEN) as first:
        window = Window(page, f"{first.url}?token={TOKEN}")
        window.until(lambda: shows_it_whole(window, 5))
        window.fill(learning_rate="7e-4")
        page.click("#tab-export-button")
        page.fill("#export-export_dir textarea", "models/mine")
        page.click("#tab-runs-button")
        page.wait_for_selector(f"#runs-list [data-folder='{RUN}']")
        port = port_of(first.url)
        first.kill()
    page.wait_for_selector("#page-away:has-text('does not answer')")
    step, visits = state_now(root).step, Visits(page)
    with studio(root, "--token", TOKEN, port=port):
        took = window.until(lambda: visits.count > 0, SECONDS)
        page.wait_for_selector("#train-form [data-ready]", state="attached")
        took += window.until(lambda: shows_it_whole(window, step + 1), SECONDS)
        assert took < SECONDS
        assert page.locator(f"{STATE} .name").text_content() == RUN
        assert window.field("learning_rate") == "7e-4", "what was typed is there"
        page.wait_for_selector(f"#runs-list [data-folder='{RUN}'] >> visible=true")  # and the tab that was open
        page.click("#tab-export-button")
        assert page.input_value("#export-export_dir textarea") == "models/mine"
        assert not page.is_visible("#page-away")
        page.click("#tab-train-button")
        page.click("#train-check")  # its buttons work
        page.wait_for_selector("text=model_name_or_path")
        assert visits.count == 1
        assert window.errors == []
    context.close()


def log_in(page: Any, password: str, then: str = "") -> None:
    page.wait_for_selector("input[type=password]")
    page.fill("[name=username]", "me")
    page.fill("[name=password]", password)
    page.click("button")
    page.wait_for_selector(f"text={then}" if then else "#train-form [data-ready]")


def test_a_login_outlives_the_server(
    browser: Any, root: Path, at_work: RunState, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TUNESMITH_HOME", str(tmp_path / "home"))
    context = browser.new_context()
    page = context.new_page()
    with studio(root, "--auth", "me:a-password") as first:
        page.goto(first.url)
        log_in(page, "a-password")
        window = Window(page, first.url)
        window.until(lambda: shows_it_whole(window, 5))
        window.fill(learning_rate="8e-4")
        port = port_of(first.url)
        first.kill()
    page.wait_for_selector("#page-away:visible")
    step, visits = state_now(root).step, Visits(page)
    with studio(root, "--auth", "me:a-password", port=port):
        window.until(lambda: visits.count > 0, SECONDS)
        window.until(lambda: shows_it_whole(window, step + 1))
        assert window.field("learning_rate") == "8e-4"
        other = browser.new_context().new_page()
        other.goto(first.url)
        log_in(other, "a-wrong-one", "do not belong together")
        other.context.close()
        assert (tmp_path / "home" / "page.key").stat().st_mode & 0o777 == 0o600
    context.close()


def browser_of(profile: Path) -> int:
    """The process of a browser, whose children are told apart by `--type`."""
    for place in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = place.read_text(encoding="utf-8", errors="replace").split("\0")
        except OSError:  # it ended meanwhile
            continue
        if f"--user-data-dir={profile}" in words and not any(word.startswith("--type=") for word in words):
            return int(place.parent.name)
    raise AssertionError("no browser has this profile")


def test_a_killed_browser_takes_no_run_along(browser: Any, root: Path, at_work: RunState, tmp_path: Path) -> None:
    with studio(root) as server:
        profile, launch = tmp_path / "profile", browser.browser_type.launch_persistent_context
        doomed = launch(profile, executable_path=chromium(), args=list(ARGUMENTS))
        window = Window(doomed.pages[0], server.url)
        window.until(lambda: shows_it_whole(window, 5))
        os.kill(browser_of(profile), signal.SIGKILL)
        step = state_now(root).step
        context = browser.new_context()
        other = Window(context.new_page(), server.url)
        other.until(lambda: shows_it_whole(other, step + 1))
        assert curves(root / RUN)["loss"][0][0] == 1
        other.page.click("#train-stop")
        other.until(lambda: other.state == "stopped")
        context.close()
