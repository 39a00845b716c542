"""A page in a real browser, over the fake engine that says what the test writes."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
from tests.serving.conftest import END, SlowEngine, make_form

from tunesmith.config.schema import RunConfig
from tunesmith.core.errors import ModelError
from tunesmith.inference.chat import decode
from tunesmith.inference.opening import OpenModel
from tunesmith.studio.seat import ModelSeat

ARGUMENTS = (
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"),
    *("--disable-component-update", "--disable-sync"),
)
NAMES = ("chromium", "chromium-browser", "google-chrome")
CONFIG = {"model_name_or_path": "org/tiny-model", "max_new_tokens": 300}


@dataclass
class Model:
    """The fake model in its seat."""

    engine: SlowEngine
    seat: ModelSeat
    answers: list[str]
    config: RunConfig
    failing: list[str] = field(default_factory=list)

    def says(self, *answers: str) -> None:
        """What the model answers, in turn and from the start again."""
        self.answers[:] = answers
        self.engine.requests.clear()

    def prompt(self, place: int = -1) -> str:
        """A prompt that reached the engine, as text."""
        return str(self.seat._voices[0].dialect.tokenizer.decode(self.engine.requests[place].prompt_ids))


def make_model(template: str = "qwen3", **keys: Any) -> Model:
    form = make_form(template)
    answers = ["Hello!"]
    failing: list[str] = []

    def answer(request: Any) -> list[int]:
        text = answers[(len(engine.requests) - 1) % len(answers)]
        return [*form.tokenizer(text, add_special_tokens=False)["input_ids"], END]

    def opening(config: RunConfig) -> OpenModel:
        if failing:
            raise ModelError(failing[0])
        return OpenModel(engine, form)

    engine = SlowEngine(answer, context=4096, decode=lambda ids: decode(form.tokenizer, ids, True))
    config = RunConfig.from_dict({**CONFIG, **keys}, command="webchat")
    model = Model(engine, ModelSeat(opening), answers, config, failing)
    model.seat.load(config)
    return model


@pytest.fixture(scope="module")  # no longer: while Playwright is there, other tests can run no event loop
def browser() -> Iterator[Any]:
    """Chromium; without it these tests fail and say what to do."""
    found = next((path for name in NAMES if (path := shutil.which(name))), None)
    if found is None:
        pytest.fail(
            "the pages are tested in a real browser and there is none: apt-get update; apt-get install chromium"
        )
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=found, args=list(ARGUMENTS))
        yield opened
        opened.close()


@dataclass
class Shown:
    """One browser window on the chat."""

    page: Any
    requests: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)

    def open(self, url: str) -> None:
        """Opens the page and waits until it can be used."""
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.goto(url)
        self.page.wait_for_selector("#chat-box textarea:not([disabled])")

    def send(self, text: str) -> None:
        """Writes a message and presses Enter."""
        self.page.fill("#chat-box textarea", text)
        self.page.press("#chat-box textarea", "Enter")

    def ask(self, text: str) -> None:
        """Sends and waits for the end of the answer."""
        bubbles = self.page.locator("#chat-window .message.bot")
        before = bubbles.count()
        self.send(text)
        self.until(lambda: bubbles.count() > before)
        self.until(lambda: "tokens" in self.note)
        self.page.wait_for_selector("#chat-box button.submit-button")

    @property
    def note(self) -> str:
        return str(self.page.inner_text("#chat-note")).strip()

    @property
    def text(self) -> str:
        """What stands in the window."""
        return str(self.page.inner_text("#chat-window"))

    @property
    def status(self) -> str:
        return str(self.page.inner_text("#chat-status"))

    def until(self, is_so: Callable[[], bool], seconds: float = 20.0) -> None:
        """Waits for the page; unlike time.sleep this lets the browser's events through."""
        deadline = time.monotonic() + seconds
        while not is_so():
            assert time.monotonic() < deadline, f"it never came to be; the window shows: {self.text}"
            self.page.wait_for_timeout(20)
