"""Where the pages listen, and who may come in."""

from __future__ import annotations

import os
import socket
from typing import Any

import pytest

from tunesmith.cli.main import main
from tunesmith.core import env
from tunesmith.core.errors import EnvironmentValueError, ServingError
from tunesmith.studio.settings import FIRST_PORT, PageSettings


def test_loopback_by_default(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("GRADIO_SERVER_NAME", "GRADIO_SERVER_PORT", "GRADIO_SHARE", "GRADIO_ROOT_PATH", "GRADIO_AUTH"):
        monkeypatch.delenv(name, raising=False)
    assert PageSettings.from_env() == PageSettings("127.0.0.1", None, False, "", ())


def test_what_users_know(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {
        "GRADIO_SERVER_NAME": "0.0.0.0",
        "GRADIO_SERVER_PORT": "9001",
        "GRADIO_SHARE": "1",
        "GRADIO_ROOT_PATH": "/chat/",
        "GRADIO_AUTH": "ann:se:cret, bob:x",
    }.items():
        monkeypatch.setenv(name, value)
    found = PageSettings.from_env()
    assert (found.host, found.port, found.share, found.root_path) == ("0.0.0.0", 9001, True, "/chat")
    assert found.auth == (("ann", "se:cret"), ("bob", "x"))


@pytest.mark.parametrize(
    "changes",
    [
        {"GRADIO_SERVER_NAME": "0.0.0.0"},
        {"GRADIO_SERVER_NAME": "::"},
        {"GRADIO_SERVER_NAME": "10.0.0.1"},
        {"GRADIO_SHARE": "true"},
        {"GRADIO_SERVER_PORT": "70000"},
        {"GRADIO_AUTH": "ann"},
        {"GRADIO_AUTH": "ann:"},
    ],
)
def test_an_open_page_does_not_start(monkeypatch: pytest.MonkeyPatch, changes: dict[str, str]) -> None:
    for name, value in changes.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ServingError, match=next(iter(changes))):
        PageSettings.from_env()


def test_a_port_that_is_no_number(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRADIO_SERVER_PORT", "http")
    with pytest.raises(EnvironmentValueError, match="GRADIO_SERVER_PORT"):
        PageSettings.from_env()


def test_ports() -> None:
    assert PageSettings().free_port() >= FIRST_PORT
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(ServingError, match="GRADIO_SERVER_PORT"):
            PageSettings(port=port).free_port()


def test_it_exits_with_2_before_the_model_is_loaded(
    monkeypatch: pytest.MonkeyPatch, capsys: Any, tiny_model_dir: str
) -> None:
    monkeypatch.setenv("GRADIO_SERVER_NAME", "0.0.0.0")
    assert main(["webchat", "--model_name_or_path", tiny_model_dir]) == 2
    assert "set GRADIO_AUTH" in capsys.readouterr().err


def test_proxies_of_the_user_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "intranet.example, localhost")
    monkeypatch.delenv("NO_PROXY", raising=False)
    env.exempt_from_proxy("localhost", "127.0.0.1")
    assert os.environ["no_proxy"] == "intranet.example,localhost,127.0.0.1"
    assert os.environ["NO_PROXY"] == "localhost,127.0.0.1"
