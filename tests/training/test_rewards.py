"""Rewards: what they give, and what a wrong name, function or server says."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from tunesmith.core.errors import ConfigError, TrainingError
from tunesmith.training import reward_server
from tunesmith.training.reward_server import ServerReward
from tunesmith.training.rewards import Sample, load_rewards


def sample(completion: str, *, reference: str = "", n_tokens: int = 1) -> Sample:
    return Sample("ask", completion, reference, f"<user>ask<assistant>{completion}", n_tokens, is_whole=True)


@pytest.mark.parametrize(
    ("name", "one", "expected"),
    [
        ("exact_match", sample(" yes\n", reference="yes"), 1),
        ("exact_match", sample("yes!", reference="yes"), 0),
        ("json_valid", sample('{"a": [1]}'), 1),
        ("json_valid", sample("7"), 0),
        ("json_valid", sample("[" * 100_000), 0),
        ("json_valid", sample('{"a": '), 0),
        (r"regex:^\d+:\d+$", sample("12:30"), 1),
        (r"regex:^\d+$", sample("a12"), 0),
        ("length:40", sample("", n_tokens=40), 1),
        ("length:40", sample("", n_tokens=50), 0.75),
        ("length:40", sample("", n_tokens=30), 0.75),
        ("length:40", sample("", n_tokens=200), 0),
    ],
)
def test_rules(name: str, one: Sample, expected: float) -> None:
    [reward] = load_rewards([name])
    assert reward([one]) == [expected]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("json_vaild", "did you mean json_valid"),
        ("length", "length:40"),
        ("length:0", "0 is no length"),
        ("length:many", "invalid literal"),
        ("regex:(", "it needs a pattern"),
        ("json_valid:x", "takes nothing"),
        ("nowhere.py:score", "there is no file nowhere.py"),
    ],
)
def test_wrong_names_say_what_to_write(name: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_rewards([name])


def test_all_wrong_names_are_told_at_once() -> None:
    with pytest.raises(ConfigError) as caught:
        load_rewards(["a", "b", "json_valid"])
    assert len(caught.value.problems) == 2


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "my.py"
    path.write_text(
        "def score(completions, references):\n    return [len(c) + len(r) for c, r in zip(completions, references)]\n"
        "def everything(**columns):\n    return [len(columns)] * len(columns['texts'])\n"
        "def short(completions):\n    return [1.0]\n"
        "def nan(completions):\n    return [float('nan')] * len(completions)\n"
        "def broken(completions):\n    return 1 / 0\n"
        "def curious(weather):\n    return []\n"
    )
    return path


def test_a_users_function_gets_what_it_asks_for(file: Path) -> None:
    score, everything = load_rewards([f"{file}:score", f"{file}:everything"])
    assert score([sample("ab", reference="c"), sample("")]) == [3, 0]
    assert everything([sample("x")]) == [5]


def test_a_users_function_that_asks_for_something_unknown_is_refused_at_the_start(file: Path) -> None:
    with pytest.raises(ConfigError, match="asks for weather; it can have prompts"):
        load_rewards([f"{file}:curious"])


@pytest.mark.parametrize(
    ("function", "message"),
    [("short", "1 scores for 2 answers"), ("nan", "must be a finite number"), ("broken", "ZeroDivisionError")],
)
def test_what_a_users_function_returns_is_checked(file: Path, function: str, message: str) -> None:
    [reward] = load_rewards([f"{file}:{function}"])
    with pytest.raises(TrainingError, match=message):
        reward([sample("a"), sample("b")])


class _Scorer(BaseHTTPRequestHandler):
    """Answers with the codes it is given, then with the length of each text."""

    failures: list[int] = []  # noqa: RUF012 - set by the test
    seen: list[dict] = []  # noqa: RUF012

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.seen.append(body)
        code = self.failures.pop(0) if self.failures else 200
        self.send_response(code)
        self.end_headers()
        self.wfile.write(json.dumps({"scores": [len(text) for text in body["messages"]]}).encode())

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setattr(reward_server.time, "sleep", lambda _: None)
    _Scorer.failures, _Scorer.seen = [], []
    with HTTPServer(("127.0.0.1", 0), _Scorer) as http:
        thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{http.server_port}/v1/score/evaluation"
        http.shutdown()


def test_a_server_scores_whole_texts(server: str) -> None:
    assert ServerReward(server)([sample("ab"), sample("")]) == [len("<user>ask<assistant>ab"), 22 - 2]
    assert _Scorer.seen[0]["messages"][0] == "<user>ask<assistant>ab"


def test_a_server_that_stumbles_is_asked_again(server: str) -> None:
    _Scorer.failures = [503, 429]
    assert len(ServerReward(server)([sample("a")])) == 1
    assert len(_Scorer.seen) == 3


def test_a_server_that_refuses_is_not_asked_again(server: str) -> None:
    _Scorer.failures = [401, 200]
    with pytest.raises(TrainingError, match="HTTP 401"):
        ServerReward(server)([sample("a")])
    assert len(_Scorer.seen) == 1


def test_a_server_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reward_server.time, "sleep", lambda _: None)
    with pytest.raises(TrainingError, match=r"no scores from http://127\.0\.0\.1:9/ in 4 tries"):
        ServerReward("http://127.0.0.1:9/")([sample("a")])
