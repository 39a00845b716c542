"""One call over real HTTP: what is sent, what is repeated, how long is waited, and what stops everything."""

from __future__ import annotations

import asyncio
import json
import socket
import time
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import pytest

from tunesmith.core.errors import GeneratorError
from tunesmith.core.types import Message
from tunesmith.synthesis.calls import Call, CallFailedError, Reply
from tunesmith.synthesis.counting import Estimate
from tunesmith.synthesis.endpoint import Address, Endpoint
from tunesmith.synthesis.retrying import Gate, asked_wait, backoff

KEY = "sk-very-secret"


def call(text: str = "Hello", **changes: Any) -> Call:
    return Call((Message("user", text),), "fake", 0.5, 0.9, 64, **changes)


def ask(url: str, *calls: Call, gate: Gate | None = None, concurrency: int = 8, **settings: Any) -> list[Any]:
    """The replies or errors of several calls that run together."""
    address = Address(url, **({"api_key": KEY, "timeout": 20, "max_retries": 3, "retry_wait": 0.01} | settings))

    async def work() -> list[Any]:
        asker = Endpoint(address, Estimate(), gate or Gate(), concurrency)
        try:
            return list(await asyncio.gather(*map(asker.ask, calls or (call(),)), return_exceptions=True))
        finally:
            await asker.close()

    return asyncio.run(work())


def test_what_is_sent_and_what_comes_back(endpoint) -> None:
    endpoint.answer = lambda body: "Hi"
    (reply,) = ask(endpoint.url, call(extra={"enable_thinking": False}))
    assert reply == Reply("Hi", 100, 10)
    assert endpoint.requests == [
        {"model": "fake", "messages": [{"role": "user", "content": "Hello"}], "temperature": 0.5, "top_p": 0.9,
         "max_tokens": 64, "enable_thinking": False}
    ]  # fmt: skip
    assert endpoint.tokens == [f"Bearer {KEY}"]


def test_tokens_are_counted_here_where_the_endpoint_does_not(endpoint) -> None:
    endpoint.answer, endpoint.usage = lambda body: "two words", False
    (reply,) = ask(endpoint.url)
    assert (reply.prompt_tokens, reply.completion_tokens) == (1, 2)


@pytest.mark.parametrize("status", [408, 409, 429, 500, 502, 503])
def test_what_passes_is_repeated_and_then_listed(endpoint, status: int) -> None:
    endpoint.status = status
    gate = Gate()
    (error,) = ask(endpoint.url, gate=gate)
    assert isinstance(error, CallFailedError)
    assert error.reason == f"HTTP {status}"
    assert "4 tries" in error.detail
    assert len(endpoint.requests) == 4
    assert set(endpoint.keys) == {call().key}, "the same call says so to services that can tell"
    assert gate.repeated == {f"HTTP {status}": 3}


def test_a_call_that_is_too_slow_is_given_up(endpoint) -> None:
    endpoint.delay = 3
    started = time.monotonic()
    (error,) = ask(endpoint.url, timeout=0.1, max_retries=1)
    assert error.reason == "timeout"
    assert time.monotonic() - started < 2.9


@pytest.mark.parametrize(
    ("status", "said", "words"),
    [
        (401, "Incorrect API key provided: sk-very-secret", ["the key is not accepted", "API_KEY", "***"]),
        (403, "no", ["the key is not accepted"]),
        (402, "Insufficient Balance", ["cannot pay", "goes on afterwards"]),
        (404, "The model `fake` does not exist", ["no model 'fake'", "/v1"]),
        (418, "teapot", ["refuses the first call with HTTP 418", "teapot"]),
        (307, "elsewhere", ["redirects to https://elsewhere/v1"]),
        (429, "insufficient_quota", ["no quota left"]),
    ],
)
def test_what_no_repetition_mends_stops_everything_at_once(endpoint, status: int, said: str, words: list[str]) -> None:
    endpoint.status, endpoint.said, endpoint.headers = status, said, {"Location": "https://elsewhere/v1"}
    (error,) = ask(endpoint.url)
    assert isinstance(error, GeneratorError)
    assert all(word in str(error) for word in words), error
    assert KEY not in str(error)
    assert len(endpoint.requests) == 1


def test_without_a_key_none_is_sent_and_401_says_so(endpoint) -> None:
    endpoint.status = 401
    (error,) = ask(endpoint.url, api_key=None)
    assert "it wants a key, and none is set" in str(error)
    assert endpoint.tokens == [""]


def test_nobody_listens() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}/v1"
    started = time.monotonic()
    (error,) = ask(url, max_retries=6, retry_wait=0.05)
    assert isinstance(error, GeneratorError)
    assert "cannot be reached" in str(error)
    assert time.monotonic() - started < 5


def test_a_web_page_is_no_api(endpoint) -> None:
    endpoint.faults = 1.0
    endpoint.dice.choice = lambda kinds: "html"
    (error,) = ask(endpoint.url)
    assert isinstance(error, GeneratorError)
    assert "web page" in str(error)
    assert "/v1" in str(error)


def test_fields_that_a_model_does_not_take_are_renamed_or_left_out(endpoint) -> None:
    refusals = iter(
        [
            "Unsupported parameter: 'max_tokens'. Use 'max_completion_tokens' instead.",
            "'temperature' does not support 0.5",
        ]
    )

    def answer(body: dict[str, Any]) -> str:
        said = next(refusals, None)
        endpoint.status, endpoint.said = (400, said) if said else (None, "")
        return "fine"

    endpoint.status, endpoint.said = 400, next(refusals)
    wait = iter([0, 1])
    original = endpoint.server.RequestHandlerClass.respond

    def respond(self: Any, body: dict[str, Any], key: str) -> None:
        original(self, body, key)
        if next(wait, None) is not None:
            answer(body)

    endpoint.server.RequestHandlerClass.respond = respond
    endpoint.answer = lambda body: "fine"
    (reply,) = ask(endpoint.url)
    assert reply.text == "fine"
    assert "max_completion_tokens" in endpoint.requests[-1]
    assert "temperature" not in endpoint.requests[-1]
    assert "max_tokens" not in endpoint.requests[-1]


def test_retry_after_holds_all_calls_back(endpoint) -> None:
    endpoint.answer = lambda body: "ok"
    endpoint.status, endpoint.headers = 429, {"Retry-After": "0.4"}
    times: list[float] = []
    original = endpoint.server.RequestHandlerClass.respond

    def respond(self: Any, body: dict[str, Any], key: str) -> None:
        times.append(time.monotonic())
        original(self, body, key)
        endpoint.status = None

    endpoint.server.RequestHandlerClass.respond = respond
    first, second = ask(endpoint.url, call("a"), call("b"), concurrency=1)
    assert first.text == second.text == "ok"
    assert times[1] - times[0] >= 0.39


def test_a_wait_of_hours_ends_the_run_instead_of_failing_every_call(endpoint) -> None:
    endpoint.status, endpoint.headers, endpoint.said = 429, {"Retry-After": "7200"}, "daily limit"
    (error,) = ask(endpoint.url)
    assert isinstance(error, GeneratorError)
    assert "asks to wait 120 minutes" in str(error)
    assert "goes on after that" in str(error)


def test_no_more_calls_than_allowed_are_under_way(endpoint) -> None:
    endpoint.answer, endpoint.delay = lambda body: "ok", 0.03
    replies = ask(endpoint.url, *(call(str(n)) for n in range(12)), concurrency=3)
    assert all(reply.text == "ok" for reply in replies)
    assert endpoint.most_underway == 3


def test_requests_a_minute(endpoint) -> None:
    endpoint.answer = lambda body: "ok"
    started = time.monotonic()
    ask(endpoint.url, *(call(str(n)) for n in range(4)), gate=Gate(per_minute=600))
    assert time.monotonic() - started >= 0.3


def test_waits() -> None:
    assert asked_wait("7") == 7
    assert asked_wait("1.5", "250") == 0.25
    assert asked_wait(None) is None
    assert asked_wait("soon") is None
    date = asked_wait(format_datetime(datetime.now(UTC) + timedelta(seconds=30)))
    assert date is not None
    assert 25 < date <= 30
    for repetition in range(12):
        waits = [backoff(2.0, repetition) for _ in range(20)]
        assert all(min(60, 2 * 2**repetition) / 2 <= wait <= min(60, 2 * 2**repetition) for wait in waits)
        assert len(set(waits)) > 10, "jitter"


def test_a_refused_call_in_the_middle_fails_alone(endpoint) -> None:
    def answer(body: dict[str, Any]) -> str:
        return "ok"

    endpoint.answer = answer
    original = endpoint.server.RequestHandlerClass.respond

    def respond(self: Any, body: dict[str, Any], key: str) -> None:
        if body["messages"][0]["content"] == "bad":
            self.send(400, json.dumps({"error": {"message": "context length exceeded"}}))
        else:
            original(self, body, key)

    endpoint.server.RequestHandlerClass.respond = respond
    good, bad, after = ask(endpoint.url, call("good"), call("bad"), call("after"), concurrency=1)
    assert good.text == after.text == "ok"
    assert isinstance(bad, CallFailedError)
    assert "context length" in str(bad)
