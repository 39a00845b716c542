"""A page in a real browser, over the fake engine that says what the test writes."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from tests.conftest import make_tiny_llama, make_tiny_tokenizer
from tests.serving.conftest import END, SlowEngine, make_form

from tunesmith.config.schema import RunConfig
from tunesmith.core.errors import ModelError
from tunesmith.core.run_state import find_runs
from tunesmith.core.runs import Run
from tunesmith.inference.chat import decode
from tunesmith.inference.opening import OpenModel
from tunesmith.recipes.runs import stop
from tunesmith.studio.head import studio_head
from tunesmith.studio.page import launch, studio_page
from tunesmith.studio.seat import ModelSeat
from tunesmith.studio.settings import PageSettings
from tunesmith.studio.workspace import Workspace

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


def chromium() -> str:
    """Where the browser is; without it these tests fail and say what to do."""
    found = next((path for name in NAMES if (path := shutil.which(name))), None)
    if found is None:
        pytest.fail(
            "the pages are tested in a real browser and there is none: apt-get update; apt-get install chromium"
        )
    return found


@pytest.fixture(scope="module")  # no longer: while Playwright is there, other tests can run no event loop
def browser() -> Iterator[Any]:
    """Chromium without a screen."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=chromium(), args=list(ARGUMENTS))
        yield opened
        opened.close()


@pytest.fixture(scope="session")
def shots(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where screenshots are kept: the folder `TUNESMITH_TEST_ARTIFACTS`, else one among pytest's own."""
    named = os.environ.get("TUNESMITH_TEST_ARTIFACTS")
    folder = Path(named) if named else tmp_path_factory.mktemp("shots")
    folder.mkdir(parents=True, exist_ok=True)
    return folder


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

    def until(self, is_so: Callable[[], bool], seconds: float = 60.0) -> None:
        """Waits for the page; unlike time.sleep this lets the browser's events through."""
        deadline = time.monotonic() + seconds
        while not is_so():
            assert time.monotonic() < deadline, f"it never came to be; the window shows: {self.text}"
            self.page.wait_for_timeout(20)


@pytest.fixture(scope="module")
def tiny_workspace(tmp_path_factory: pytest.TempPathFactory, tiny_model_dir: str) -> Iterator[Workspace]:
    """A workspace, and the current folder, with a tiny model and two runs that trained an adapter of it."""
    root = tmp_path_factory.mktemp("workspace")
    shutil.copytree(tiny_model_dir, root / "models" / "tiny")
    for name in ("one", "two"):
        make_run(root, name)
    before = Path.cwd()
    os.chdir(root)
    yield Workspace.at(root)
    os.chdir(before)


def make_run(root: Path, name: str) -> None:
    """A finished run in `saves/NAME`, whose adapter draws other tokens than that of another name."""
    import torch
    from peft import LoraConfig, get_peft_model

    folder = root / "saves" / name
    keys = {
        "model_name_or_path": "models/tiny",
        "template": "chatml",
        "dataset": "identity",
        "do_train": True,
        "output_dir": f"saves/{name}",
    }
    adapted = get_peft_model(make_tiny_llama(), LoraConfig(r=2, target_modules=["down_proj"], task_type="CAUSAL_LM"))
    torch.manual_seed(len(name) + ord(name[0]))
    for parameter in adapted.parameters():
        if parameter.requires_grad:
            torch.nn.init.normal_(parameter)
    for place in (folder, folder / "checkpoint-2"):
        adapted.save_pretrained(place)
        described = json.loads((place / "adapter_config.json").read_text())
        described["base_model_name_or_path"] = "models/tiny"
        (place / "adapter_config.json").write_text(json.dumps(described))
    (folder / "training_args.yaml").write_text(RunConfig.from_dict(keys).to_yaml())
    with Run(folder).working("train"):
        Run(folder).emit("log", step=2, total_steps=2, loss=1.0)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A workspace with a tiny model; what still runs or waits in it at the end is ended."""
    folder = tmp_path_factory.mktemp("workspace")
    make_tiny_llama().save_pretrained(folder / "tiny")
    make_tiny_tokenizer().save_pretrained(folder / "tiny")
    yield folder
    for run in sorted(find_runs(folder), key=lambda run: run.state != "queued"):  # what waits must not begin now
        if run.is_active:
            stop(run, now=True)


@pytest.fixture(scope="module")
def studio_url(tiny_workspace: Workspace) -> Iterator[str]:
    """The studio over the workspace."""
    settings = PageSettings(port=0)
    page = studio_page(tiny_workspace)
    yield launch(page, settings, settings.free_port(), studio_head())
    page.close(verbose=False)


@dataclass
class Tab:
    """One browser window on a tab of the studio."""

    page: Any
    errors: list[str] = field(default_factory=list)

    def open(self, url: str, name: str) -> None:
        """Opens the page, then the tab by its label."""
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.goto(url)
        self.press(name)

    def press(self, name: str) -> None:
        """Opens a tab; on a narrow screen some are behind the three dots."""
        found = self.page.get_by_role("tab", name=name, exact=True)
        self.page.wait_for_selector("#studio-tabs")
        self.page.wait_for_timeout(300)
        if found.count() and found.first.is_visible():
            found.first.click()
            return
        self.page.locator(".overflow-menu > button").first.click()
        self.page.locator(f".overflow-dropdown button:has-text('{name}')").first.click()

    def fill(self, elem: str, value: str) -> None:
        """Writes into a field."""
        self.page.fill(f"#{elem} :is(input, textarea)", value)

    def choose(self, elem: str, value: str) -> None:
        """Takes an entry of a list."""
        entry = self.page.get_by_role("option", name=value, exact=True)
        self.until(lambda: entry.count() == 0)  # the list before fades out first: it may hold this entry, too
        self.page.click(f"#{elem} input")
        entry.click()

    def write(self, elem: str, value: str) -> None:
        """Writes a value of one's own into a list."""
        self.page.fill(f"#{elem} input", value)
        self.page.press(f"#{elem} input", "Enter")

    def text(self, elem: str) -> str:
        """What stands in an element."""
        return str(self.page.inner_text(f"#{elem}"))

    def until(self, is_so: Callable[[], bool], seconds: float = 60.0) -> None:
        """Waits for the page; other processes may be at work for it."""
        deadline = time.monotonic() + seconds
        while not is_so():
            shown = self.page.inner_text("body")
            assert time.monotonic() < deadline, f"it never came to be; the page shows: {shown}"
            self.page.wait_for_timeout(100)


@pytest.fixture
def tab(browser: Any) -> Iterator[Tab]:
    """A window of its own for each test."""
    context = browser.new_context(viewport={"width": 1280, "height": 720})
    opened = Tab(context.new_page())
    yield opened
    assert opened.errors == []
    context.close()


@pytest.fixture
def phone(browser: Any) -> Iterator[Tab]:
    """A window as narrow as a phone."""
    context = browser.new_context(viewport={"width": 390, "height": 844})
    opened = Tab(context.new_page())
    yield opened
    assert opened.errors == []
    assert opened.page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
    context.close()
