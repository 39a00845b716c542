"""A browser window on the studio, as tests drive it: the form of the tab Train, and what the run shown there does."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

STATE = "#train-live .live"
FORM = {
    "model_name_or_path": "tiny",
    "dataset": "identity",
    "dataset_dir": "data",
    "max_samples": "12",
    "cutoff_len": "64",
    "learning_rate": "1e-3",
    "num_train_epochs": "10",
    "gradient_accumulation_steps": "1",
    "logging_steps": "1",
    "save_steps": "1000",
}
"""A run over a tiny model in the workspace `root`."""


class Window:
    """A browser window on the studio."""

    def __init__(self, page: Any, url: str, shots: Path | None = None) -> None:
        self.page, self.url, self.shots = page, url, shots
        self.errors: list[str] = []
        page.on("pageerror", lambda error: self.errors.append(str(error)))
        page.set_default_timeout(60_000)
        self.open()

    def open(self) -> None:
        self.page.goto(self.url)
        self.page.wait_for_selector("#train-form [data-ready]")

    def fill(self, **said: str) -> None:
        for name, text in said.items():
            field = self.page.locator(f"#train-form [name={name}]")
            if field.evaluate("node => node.tagName") == "SELECT":
                field.select_option(text)
            else:
                field.fill(text)

    def field(self, name: str) -> str:
        return str(self.page.locator(f"#train-form [name={name}]").input_value())

    @property
    def state(self) -> str:
        return str(self.page.get_attribute(STATE, "data-state"))

    def active(self, tab: str = "train") -> list[str]:
        """Which of Stop, Stop now and Resume can be pressed."""
        names = ("stop", "kill", "resume") if tab == "runs" else ("stop", "resume")
        return [name for name in names if self.page.is_enabled(f"#{tab}-{name}")]

    @property
    def step(self) -> int:
        return int(self.page.locator(f"{STATE} .bar").evaluate("node => node.value"))

    def points(self, name: str = "loss") -> int:
        """Points of a curve, 0 where it is not drawn."""
        path = self.page.locator(f"#train-live [data-curve={name}] path.curve")
        return str(path.get_attribute("d")).count(",") if path.count() else 0

    def text(self, place: str) -> str:
        return str(self.page.inner_text(place))

    def until(self, is_so: Callable[[], bool], seconds: float = 400.0) -> float:
        """Waits for the page; gives how long it took."""
        began = time.monotonic()
        while not is_so():
            assert time.monotonic() - began < seconds, f"never; {self.text('#train-live')[:600]}"
            self.page.wait_for_timeout(50)
        return time.monotonic() - began

    def keep(self, name: str) -> None:
        """Keeps a screenshot as an artefact of the test."""
        assert self.shots
        self.page.screenshot(path=self.shots / f"studio-{name}.png")
