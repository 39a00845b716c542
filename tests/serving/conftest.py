"""A server on a loopback port over the fake engine, with answers that the test writes as text."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
import uvicorn
from tests.conftest import make_tiny_tokenizer

from tunesmith.data.auto_template import auto_template
from tunesmith.data.settings import RenderSettings
from tunesmith.data.template import load_template
from tunesmith.inference.chat import ChatFormat, decode
from tunesmith.inference.engine import Delta, GenerationRequest, SamplingParams
from tunesmith.inference.fake import FakeEngine
from tunesmith.inference.runner import EngineRunner
from tunesmith.models.tokenizer import apply_template
from tunesmith.serving.app import build_app, server_config
from tunesmith.serving.dialect import Dialect
from tunesmith.serving.names import ModelNames
from tunesmith.serving.service import Service
from tunesmith.serving.settings import ServerSettings

MODEL = "org/tiny-model"
END = 2
CONTEXT = 4096


class SlowEngine(FakeEngine):
    """The fake engine with time between steps; ids that the test gives out."""

    pause = 0.0
    failing: Exception | None = None

    def step(self) -> list[Delta]:
        if self._running or self._waiting:
            time.sleep(self.pause)
            if self.failing:
                raise self.failing
        return super().step()


@dataclass
class Stage:
    """One running server and its engine."""

    url: str
    service: Service
    engine: SlowEngine
    tokenizer: Any
    answers: list[str]
    server: uvicorn.Server
    client: openai.OpenAI = field(init=False)

    def __post_init__(self) -> None:
        key = self.service.settings.api_key or "0"
        self.client = openai.OpenAI(base_url=f"{self.url}/v1", api_key=key, max_retries=0, timeout=20)

    def says(self, *answers: str) -> None:
        """What the model answers, in turn and from the start again."""
        self.answers[:] = answers

    @property
    def seen(self) -> GenerationRequest:
        """The last request that reached the engine."""
        return self.engine.requests[-1]

    @property
    def prompt(self) -> str:
        """Its prompt as text."""
        return str(self.tokenizer.decode(self.seen.prompt_ids))

    def ask(self, content: str = "Hi", **fields: Any) -> Any:
        """One user message through the official client."""
        fields = {"model": MODEL, "messages": [{"role": "user", "content": content}], **fields}
        return self.client.chat.completions.create(**fields)

    def post(self, path: str = "/v1/chat/completions", /, **fields: Any) -> httpx.Response:
        """A body as it is; a chat request needs no more than what is asked about."""
        if path == "/v1/chat/completions":
            fields = {"model": MODEL, "messages": [{"role": "user", "content": "Hi"}], **fields}
        return httpx.post(f"{self.url}{path}", json=fields, timeout=20)


def make_form(template: str = "auto", **settings: Any) -> ChatFormat:
    """The tiny tokenizer under a template."""
    tokenizer = make_tiny_tokenizer()
    chosen = auto_template(tokenizer) if template == "auto" else load_template(template)
    apply_template(tokenizer, chosen)
    return ChatFormat(chosen, tokenizer, RenderSettings(**settings), (END,))


def make_stage_parts(
    template: str = "auto", *, slots: int = 8, settings: ServerSettings | None = None, **render: Any
) -> tuple[Service, SlowEngine, list[str]]:
    """A service over the fake engine; the list holds its answers."""
    form = make_form(template, **render)
    answers = ["Hello!"]

    def answer(request: GenerationRequest) -> list[int]:
        text = answers[(len(engine.requests) - 1) % len(answers)]
        return [*form.tokenizer(text, add_special_tokens=False)["input_ids"], END]

    settings = settings or ServerSettings()
    engine = SlowEngine(answer, slots=slots, context=CONTEXT, decode=lambda ids: decode(form.tokenizer, ids, True))
    service = Service(
        runner=EngineRunner(engine, max_queue=settings.max_queue, idle_seconds=0.05),
        dialect=Dialect(form),
        defaults=SamplingParams(),
        names=ModelNames(MODEL, alias=settings.model_name),
        settings=settings,
        context=CONTEXT,
    )
    return service, engine, answers


@contextmanager
def served(service: Service) -> Iterator[tuple[str, uvicorn.Server]]:
    """Runs a service in a thread on a free port; gives its address and the server."""
    listening = socket.socket()
    listening.bind(("127.0.0.1", 0))
    server = uvicorn.Server(server_config(build_app(service), service.settings))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
    thread.start()
    wait_until(lambda: server.started)
    try:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}", server
    finally:
        server.should_exit = True
        thread.join(20)
        listening.close()
    assert not thread.is_alive()


@contextmanager
def on_stage(template: str = "auto", **options: Any) -> Iterator[Stage]:
    """Runs a server in a thread."""
    service, engine, answers = make_stage_parts(template, **options)
    with served(service) as (url, server):
        stage = Stage(url, service, engine, service.dialect.tokenizer, answers, server)
        try:
            yield stage
        finally:
            engine.pause = 0.0
            stage.client.close()


def wait_until(is_so: Callable[[], bool], seconds: float = 10.0) -> None:
    """Waits for something that another thread brings about."""
    deadline = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < deadline, "it never came to be"
        time.sleep(0.005)


@pytest.fixture(scope="module")
def shared_stage() -> Iterator[Stage]:
    with on_stage() as stage:
        yield stage


@pytest.fixture
def stage(shared_stage: Stage) -> Stage:
    """One server for a module, as new for each test."""
    shared_stage.says("Hello!")
    shared_stage.engine.pause = 0.0
    shared_stage.engine.failing = None
    return shared_stage


@pytest.fixture(scope="module")
def qwen_stage() -> Iterator[Stage]:
    """A family that thinks and calls tools."""
    with on_stage("qwen3") as stage:
        yield stage


@pytest.fixture
def adapter_dir(tmp_path: Path) -> Path:
    for name in ("one", "two"):
        (tmp_path / "saves" / name).mkdir(parents=True)
        (tmp_path / "saves" / name / "adapter_config.json").write_text("{}")
    return tmp_path / "saves"


def settings(**changes: Any) -> ServerSettings:
    return replace(ServerSettings(), **changes)
