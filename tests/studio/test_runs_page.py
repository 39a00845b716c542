"""The tab Runs beside the command line: what one does the other shows; clones, comparisons, refusals in Chromium."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.studio.server import Server, studio
from tests.studio.window import FORM, Window

from tunesmith.cli.main import COMMANDS
from tunesmith.core.run_state import read_state
from tunesmith.core.runs import Run
from tunesmith.recipes.queue import QUEUED_CONFIG

pytestmark = pytest.mark.slow

LONG = FORM | {"num_train_epochs": "20000", "do_train": "true", "template": "auto", "output_dir": "saves/long"}
SHORT = FORM | {"max_steps": "2", "do_train": "true", "template": "auto", "output_dir": "saves/base"}
STUDIO_PAGE = Path(__file__).parents[2] / "docs" / "studio.md"


@pytest.fixture(scope="module")
def server(root: Path) -> Iterator[Server]:
    for name, said in (("long", LONG), ("base", SHORT)):
        (root / f"{name}.yaml").write_text("".join(f"{key}: {text}\n" for key, text in said.items()))
    with studio(root) as started:
        yield started


class List(Window):
    """A window on the list of runs."""

    def open(self) -> None:
        super().open()
        self.page.click("#tab-runs-button")

    def states(self) -> dict[str, str]:
        rows = self.page.locator("#runs-list tr[data-folder]")
        facts = "nodes => nodes.map(node => [node.dataset.folder, node.dataset.runState])"
        return dict(rows.evaluate_all(facts))

    def until_state(self, name: str, state: str) -> None:
        self.until(lambda: self.states().get(f"saves/{name}") == state)

    def choose(self, *names: str) -> None:
        """Takes these runs, and no others, in this order."""
        taken = self.page.locator("#runs-list input:checked")
        for folder in taken.evaluate_all("boxes => boxes.map(box => box.dataset.folder)"):
            self.page.uncheck(f"#runs-list input[data-folder='{folder}']")
        for name in names:
            self.page.check(f"#runs-list input[data-folder='saves/{name}']")

    def table(self, title: str) -> dict[str, list[str]]:
        """A table of the comparison: name of a row -> its cells."""
        rows = self.page.locator(f"#runs-beside table:has(caption:text-is('{title}')) tbody tr")
        cells = "rows => rows.map(row => [...row.children].map(cell => cell.textContent))"
        return {name: values for name, *values in rows.evaluate_all(cells)}


@pytest.fixture
def page(browser: Any, server: Server, shots: Path) -> Iterator[List]:
    context = browser.new_context(viewport={"width": 1280, "height": 860})
    opened = List(context.new_page(), server.url, shots)
    yield opened
    assert opened.errors == []
    context.close()


@pytest.fixture
def runs(root: Path) -> Callable[..., str]:
    """`tunesmith runs` in a process of its own; notes which actions were done."""

    def act(*words: str) -> str:
        done.add(words[0])
        command = [sys.executable, "-m", "tunesmith", "runs", *words]
        environment = {**os.environ, "TUNESMITH_WORKSPACE": str(root)}
        return subprocess.run(command, env=environment, cwd=root, check=True, capture_output=True, text=True).stdout

    done: set[str] = set()
    act.done = done  # type: ignore[attr-defined]
    return act


def commands_in_tables() -> list[str]:
    """The commands that the page on the studio names beside the buttons."""
    rows = [line for line in STUDIO_PAGE.read_text(encoding="utf-8").splitlines() if line.startswith("| ")]
    return [found for line in rows for found in re.findall(r"`tunesmith ([^`]+)`", line)]


def test_every_button_has_a_command_that_does_the_same(page: List, runs: Any, root: Path) -> None:
    def told(name: str) -> str:
        return str(json.loads(runs("show", f"saves/{name}", "--json"))["state"])

    assert "saves/long" in runs("queue", "long.yaml")
    page.until_state("long", "running")
    page.choose("long")
    assert told("long") == "running"
    runs("clone", "long", "saves/copy", "learning_rate=5e-3")
    runs("sweep", "long.yaml", "learning_rate=1e-4,2e-4", "output_dir=saves/swept")
    names = [f"swept/learning_rate={value}" for value in ("1e-4", "2e-4")]
    for name in ("copy", *names):
        page.until_state(name, "queued")
    listed = {one["folder"]: one["state"] for one in json.loads(runs("list", "--json"))}
    assert page.states() == listed

    runs("stop", "saves/copy")
    page.until_state("copy", "cancelled")
    for name in names:
        page.choose(name)
        page.page.click("#runs-stop")
        page.until_state(name, "cancelled")
        assert told(name) == "cancelled"
    runs("stop", "saves/long")
    page.until_state("long", "stopped")
    runs("resume", "saves/long")
    page.until_state("long", "running")
    page.choose("long")
    page.page.click("#runs-kill")
    page.until_state("long", "stopped")
    assert told("long") == "stopped"

    found = json.loads(runs("compare", "saves/long", "saves/copy", "--json"))
    page.choose("long", "copy")
    page.page.click("#runs-compare")
    page.page.wait_for_selector("#runs-beside caption")
    assert page.table("Keys that differ") == {
        "State": ["stopped", "cancelled"],
        **{name: [str(value) for value in values] for name, values in found["keys"].items()},
    }
    assert found["keys"] == {"learning_rate": [1e-3, 5e-3]}
    assert set(page.table("Last numbers")) == set(found["numbers"])
    assert runs.done == {words.split()[1] for words in commands_in_tables() if words.startswith("runs ")}


def test_the_other_commands_of_the_tables_are_there() -> None:
    named = {words.split()[0] for words in commands_in_tables()}
    assert {"runs", "data", "compare", "webchat"} <= named <= set(COMMANDS)
    actions = {words.split()[1] for words in commands_in_tables() if words.startswith("data ")}
    for action in actions:
        words = [sys.executable, "-m", "tunesmith", "data", action]
        said = subprocess.run(words, capture_output=True, text=True, check=False).stderr
        assert "does not know" not in said, said
    assert actions == {"preview", "check"}


def test_a_clone_with_changes_is_compared(page: List, runs: Any, root: Path) -> None:
    runs("queue", "base.yaml")
    page.until_state("base", "finished")
    page.choose("base")
    page.page.click("#runs-clone button")
    page.page.fill("#runs-output :is(input, textarea)", "saves/warmer")
    page.page.fill("#runs-changes textarea", "learning_rate = 5e-3\nmax_steps=3")
    page.page.click("#runs-clone_button")
    page.page.wait_for_selector("#runs-said:has-text('Queued: saves/warmer')")
    page.until_state("warmer", "finished")

    page.choose("base", "warmer")
    page.page.click("#runs-compare")
    page.until(lambda: page.page.locator("#runs-beside [data-curve=loss] path.curve").count() == 2)
    legend = page.page.locator("#runs-beside [data-curve=loss] .legend span")
    assert legend.all_inner_texts() == ["base", "warmer"]
    assert page.table("Keys that differ") == {
        "State": ["finished", "finished"],
        "learning_rate": ["0.001", "0.005"],
        "max_steps": ["2", "3"],
    }
    numbers = [read_state(root / "saves" / name).numbers["loss"] for name in ("base", "warmer")]  # type: ignore[union-attr]
    assert [float(text) for text in page.table("Last numbers")["loss"]] == pytest.approx(numbers, rel=1e-4)
    page.keep("compare")


def test_what_cannot_be_done_is_said(page: List, root: Path) -> None:
    def refused(words: str) -> None:
        page.page.wait_for_selector(f".toast-body:has-text('{words}')")
        page.page.locator(".toast-close").first.click()

    ended = Run(root / "saves/ended")
    with ended.working("train"):
        (ended.folder / QUEUED_CONFIG).write_text((root / "base.yaml").read_text())
    page.until_state("ended", "finished")
    assert page.page.locator("#runs-stop").is_disabled()
    page.page.wait_for_selector("#runs-why:has-text('No run is chosen')")
    page.page.click("#runs-compare")
    refused("Choose two runs or more")
    page.choose("ended")
    page.page.wait_for_selector("#runs-why:has-text('finished')")
    assert page.page.locator("#runs-stop").is_disabled()
    page.page.click("#runs-clone button")
    for output, changes, words in (
        ("saves/x", "learning_rate", "write key=value"),
        ("saves/x", "lerning_rate=1", "learning_rate"),
        ("../x", "seed=1", "outside the workspace"),
        ("", "seed=1", "an output folder of its own"),
    ):
        page.page.fill("#runs-output :is(input, textarea)", output)
        page.page.fill("#runs-changes textarea", changes)
        page.page.click("#runs-clone_button")
        refused(words)
    assert not (root / "saves/x").exists()
