"""Who may come in, and with how much."""

from __future__ import annotations

import json
import logging
import socket
from collections.abc import Iterator
from typing import Any

import httpx
import openai
import pytest
from tests.serving.conftest import MODEL, Stage, on_stage, settings

from tunesmith.cli.main import main
from tunesmith.core.errors import EnvironmentValueError, ServingError
from tunesmith.core.net import is_loopback
from tunesmith.serving.settings import ServerSettings

KEY = "s3cret-Schlüssel"
CHAT = {"model": MODEL, "messages": [{"role": "user", "content": "Hi"}]}


@pytest.fixture(scope="module")
def locked() -> Iterator[Stage]:
    with on_stage(settings=settings(api_key=KEY, max_body=20_000, cors_origins=("https://page.example",))) as running:
        yield running


def headers(key: str = KEY) -> dict[bytes, bytes]:
    return {b"authorization": f"Bearer {key}".encode()}


def test_the_right_key_opens(locked: Stage) -> None:
    response = httpx.post(f"{locked.url}/v1/chat/completions", json=CHAT, headers=headers())
    assert response.status_code == 200


@pytest.mark.parametrize("value", [None, "", "Bearer", "Bearer wrong", f"Basic {KEY}", KEY, f"Bearer {KEY}x"])
@pytest.mark.parametrize("path", ["/v1/models", "/metrics", "/v1/adapters", "/nothing"])
def test_a_wrong_key_does_not(locked: Stage, value: str | None, path: str) -> None:
    sent = {} if value is None else {b"authorization": value.encode()}
    response = httpx.get(f"{locked.url}{path}", headers=sent)
    assert response.status_code == 401
    assert response.headers["www-authenticate"] == "Bearer"
    assert response.json()["error"]["code"] == "invalid_api_key"
    assert KEY not in response.text


def test_the_client_sees_an_authentication_error(locked: Stage) -> None:
    client = openai.OpenAI(base_url=f"{locked.url}/v1", api_key="wrong", max_retries=0)
    with pytest.raises(openai.AuthenticationError):
        client.models.list()


def test_health_and_documentation_are_open(locked: Stage) -> None:
    for path in ("/health", "/docs", "/openapi.json"):
        assert httpx.get(f"{locked.url}{path}").status_code == 200


def test_a_body_that_is_too_large(locked: Stage) -> None:
    body = json.dumps({**CHAT, "user": "x" * 30_000})
    kind = {**headers(), b"content-type": b"application/json"}
    response = httpx.post(f"{locked.url}/v1/chat/completions", content=body, headers=kind)
    assert response.status_code == 413
    assert "API_MAX_BODY_MB" in response.json()["error"]["message"]

    def pieces() -> Iterator[bytes]:
        for _ in range(40):
            yield b"x" * 1000

    response = httpx.post(f"{locked.url}/v1/chat/completions", content=pieces(), headers=kind)
    assert response.status_code == 413


def test_a_length_that_lies_is_no_way_around(locked: Stage) -> None:
    """A huge Content-Length is refused before a byte of the body has come."""
    with socket.create_connection(("127.0.0.1", int(locked.url.rpartition(":")[2])), 5) as sock:
        sock.sendall(
            b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
            b"Authorization: Bearer " + KEY.encode() + b"\r\nContent-Length: 99999999999\r\n\r\n"
        )
        assert b" 413 " in sock.recv(4096).splitlines()[0]


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", ""])
def test_only_json_is_read(stage: Stage, kind: str) -> None:
    """What a web page of another site can send without being asked for leave is none of these routes' business."""
    sent = {"content-type": kind} if kind else {}
    response = httpx.post(f"{stage.url}/v1/chat/completions", content=json.dumps(CHAT), headers=sent)
    assert response.status_code == 415


@pytest.mark.parametrize("host", ["evil.example", "evil.example:8000", "localhost.evil.example", "10.0.0.5", ""])
def test_other_host_names_are_refused_without_a_key(stage: Stage, host: str) -> None:
    response = httpx.get(f"{stage.url}/v1/models", headers={"host": host})
    assert response.status_code in (400, 403)


@pytest.mark.parametrize(
    "host", ["localhost", "localhost:8000", "0.0.0.0:8000", "127.0.0.1", "127.0.1.1", "[::1]:8000"]
)
def test_names_of_this_machine_are_not(stage: Stage, host: str) -> None:
    assert httpx.get(f"{stage.url}/v1/models", headers={"host": host}).status_code == 200


def test_no_cors_unless_asked_for(stage: Stage, locked: Stage) -> None:
    origin = {"origin": "https://page.example"}
    assert "access-control-allow-origin" not in httpx.get(f"{stage.url}/health", headers=origin).headers
    response = httpx.get(f"{locked.url}/health", headers=origin)
    assert response.headers["access-control-allow-origin"] == "https://page.example"
    assert "access-control-allow-credentials" not in response.headers
    other = httpx.get(f"{locked.url}/health", headers={"origin": "https://other.example"})
    assert "access-control-allow-origin" not in other.headers
    asked = {**origin, "access-control-request-method": "POST", "access-control-request-headers": "authorization"}
    assert httpx.options(f"{locked.url}/v1/chat/completions", headers=asked).status_code == 200


def test_nothing_of_the_server_is_told(stage: Stage) -> None:
    response = httpx.get(f"{stage.url}/v1/models/../../etc/passwd")
    assert response.status_code == 404
    assert "uvicorn" not in response.headers.get("server", "")


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("127.0.0.1", True),
        ("127.9.9.9", True),
        ("::1", True),
        ("localhost", True),
        ("0.0.0.0", False),
        ("::", False),
        ("10.1.2.3", False),
        ("no such host", False),
    ],
)
def test_loopback(host: str, expected: bool) -> None:
    assert is_loopback(host) is expected


@pytest.mark.parametrize(
    "changes",
    [
        {"API_HOST": "0.0.0.0"},
        {"API_HOST": "::"},
        {"API_CORS_ORIGINS": "*"},
        {"FASTAPI_ROOT_PATH": "api"},
        {"API_PORT": "70000"},
        {"API_KEY": " x"},
        {"API_KEY": "a\tb"},
    ],
)
def test_an_open_server_does_not_start(monkeypatch: pytest.MonkeyPatch, changes: dict[str, str]) -> None:
    for name, value in changes.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ServingError, match=next(iter(changes))):
        ServerSettings.from_env()


def test_it_exits_with_2_before_the_model_is_loaded(
    monkeypatch: pytest.MonkeyPatch, capsys: Any, tiny_model_dir: str
) -> None:
    monkeypatch.setenv("API_HOST", "0.0.0.0")
    monkeypatch.delenv("API_KEY", raising=False)
    assert main(["api", "--model_name_or_path", tiny_model_dir]) == 2
    assert "set API_KEY" in capsys.readouterr().err


def test_a_port_in_use(monkeypatch: pytest.MonkeyPatch, capsys: Any, tiny_model_dir: str) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        monkeypatch.setenv("API_PORT", str(taken.getsockname()[1]))
        assert main(["api", "--model_name_or_path", tiny_model_dir]) == 2
    assert "cannot listen on" in capsys.readouterr().err


def test_settings_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {
        "API_HOST": "0.0.0.0",
        "API_PORT": "9000",
        "API_KEY": KEY,
        "API_MODEL_NAME": "mine",
        "API_VERBOSE": "y",
        "FASTAPI_ROOT_PATH": "/llm/",
        "MAX_CONCURRENT": "3",
        "API_MAX_QUEUE": "5",
        "API_MAX_BODY_MB": "0.5",
        "API_TIMEOUT": "9.5",
        "API_CORS_ORIGINS": "https://a.example, https://b.example",
        "API_ADAPTER_DIR": "/models",
    }.items():
        monkeypatch.setenv(name, value)
    found = ServerSettings.from_env()
    assert (found.host, found.port, found.api_key, found.model_name) == ("0.0.0.0", 9000, KEY, "mine")
    assert (found.is_verbose, found.root_path, found.max_concurrent, found.max_queue) == (True, "/llm", 3, 5)
    assert (found.max_body, found.timeout) == (500_000, 9.5)
    assert found.cors_origins == ("https://a.example", "https://b.example")


@pytest.mark.parametrize(("name", "value"), [("API_PORT", "http"), ("MAX_CONCURRENT", "0"), ("API_TIMEOUT", "nan")])
def test_numbers_of_the_environment(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(EnvironmentValueError, match=name):
        ServerSettings.from_env()


def test_the_log_never_holds_the_key(caplog: pytest.LogCaptureFixture) -> None:
    key = 'k"ey-for-tests'
    with (
        on_stage(settings=settings(api_key=key, is_verbose=True)) as running,
        caplog.at_level(logging.INFO, logger="tunesmith"),
    ):
        running.says(f"Your key is {key}.")
        running.ask(f"my key is {key}")
    assert "my key is ***" in caplog.text
    assert "Your key is ***." in caplog.text
    assert "for-tests" not in caplog.text


@pytest.mark.parametrize("prefix", ["", "/llm"])
def test_behind_a_proxy(prefix: str) -> None:
    """Whether the proxy strips its prefix or not."""
    with on_stage(settings=settings(api_key="k", root_path="/llm")) as running:
        assert httpx.get(f"{running.url}{prefix}/health").status_code == 200
        assert httpx.get(f"{running.url}{prefix}/v1/models").status_code == 401
        client = openai.OpenAI(base_url=f"{running.url}{prefix}/v1", api_key="k", max_retries=0)
        assert client.models.list().data[0].id == MODEL
        assert httpx.get(f"{running.url}{prefix}/openapi.json").json()["servers"] == [{"url": "/llm"}]
