"""What happens under load and when things end early: queue, clients that leave, time, faults, shutdown."""

from __future__ import annotations

import json
import os
import signal
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import openai
import pytest
from tests.serving.conftest import MODEL, Stage, make_stage_parts, on_stage, settings, wait_until

from tunesmith.core.errors import Interrupted, ModelError
from tunesmith.serving.app import build_app, serve

LONG = "the quick brown fox jumps over the lazy dog " * 30
BODY = {"model": MODEL, "messages": [{"role": "user", "content": "Hi"}]}


def events(response: httpx.Response) -> list[Any]:
    """The data of a whole stream."""
    lines = [line.removeprefix("data: ") for line in response.text.splitlines() if line.startswith("data: ")]
    return [line if line == "[DONE]" else json.loads(line) for line in lines]


def idle(stage: Stage) -> bool:
    stats = stage.engine.stats()
    return stats.running == stats.waiting == 0 and stage.service.metrics.open_requests == 0


def test_the_bytes_of_a_stream(stage: Stage) -> None:
    response = stage.post(stream=True)
    assert response.headers["content-type"].startswith("text/event-stream")
    assert response.headers["cache-control"] == "no-cache"
    *chunks, last = events(response)
    assert last == "[DONE]"
    for chunk in chunks:
        assert set(chunk) == {"id", "object", "created", "model", "choices"}
        assert chunk["object"] == "chat.completion.chunk"
        (choice,) = chunk["choices"]
        assert set(choice) == {"index", "delta", "logprobs", "finish_reason"}
    assert chunks[0]["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    assert chunks[-1]["choices"][0]["delta"] == {}


def test_a_full_queue_answers_429_and_says_when(stage: Stage) -> None:
    with on_stage(slots=1, settings=settings(max_queue=2)) as small:
        small.says(LONG)
        small.engine.pause = 0.02
        with ThreadPoolExecutor(6) as pool:
            first = pool.submit(small.post, max_tokens=30)
            wait_until(lambda: small.engine.stats().running == 1)
            others = [pool.submit(small.post, max_tokens=30) for _ in range(5)]
            responses = [future.result() for future in [first, *others]]
        codes = sorted(response.status_code for response in responses)
        assert codes.count(200) >= 3
        assert codes[-1] == 429
        (refused, *_) = [response for response in responses if response.status_code == 429]
        assert 1 <= int(refused.headers["retry-after"]) <= 60
        assert refused.json()["error"]["code"] == "queue_full"
        assert refused.json()["error"]["type"] == "rate_limit_error"
        wait_until(lambda: idle(small))
        assert small.post(max_tokens=1).status_code == 200


def test_part_of_a_request_is_never_left_in_the_engine(stage: Stage) -> None:
    """Of several prompts the third finds the queue full: the first two must not go on."""
    with on_stage(slots=1, settings=settings(max_queue=2)) as small:
        small.says(LONG)
        small.engine.pause = 0.02
        response = small.post("/v1/completions", model=MODEL, prompt=["a"] * 6, max_tokens=200)
        assert response.status_code == 429
        wait_until(lambda: idle(small))


@pytest.mark.parametrize("stream", [False, True])
def test_a_client_that_goes_away_frees_its_place(stage: Stage, stream: bool) -> None:
    stage.says(LONG)
    stage.engine.pause = 0.01
    before = stage.service.metrics.disconnects
    body = json.dumps({**BODY, "stream": stream}).encode()
    with socket.create_connection(("127.0.0.1", int(stage.url.rpartition(":")[2])), 5) as sock:
        sock.sendall(
            b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
            b"Content-Length: " + str(len(body)).encode() + b"\r\n\r\n" + body
        )
        wait_until(lambda: stage.engine.stats().running == 1)
    wait_until(lambda: idle(stage))
    assert stage.engine.stats().generated_tokens < len(stage.tokenizer(LONG)["input_ids"])
    wait_until(lambda: stage.service.metrics.disconnects > before)


def test_a_client_that_goes_away_in_the_queue(stage: Stage) -> None:
    with on_stage(slots=1) as small:
        small.says(LONG)
        small.engine.pause = 0.01
        with pytest.raises(httpx.ReadTimeout):
            httpx.post(f"{small.url}/v1/chat/completions", json=BODY, timeout=0.3)
        wait_until(lambda: idle(small))


def test_a_half_sent_body(stage: Stage) -> None:
    with socket.create_connection(("127.0.0.1", int(stage.url.rpartition(":")[2])), 5) as sock:
        sock.sendall(
            b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
            b'Content-Length: 500\r\n\r\n{"model": '
        )
    assert stage.post().status_code == 200


@pytest.mark.parametrize("stream", [False, True])
def test_time_runs_out(stage: Stage, stream: bool) -> None:
    with on_stage(settings=settings(timeout=0.3)) as hasty:
        hasty.says(LONG)
        hasty.engine.pause = 0.02
        response = hasty.post(stream=stream)
        error = events(response)[-1]["error"] if stream else response.json()["error"]
        assert response.status_code == (200 if stream else 504)
        assert "API_TIMEOUT" in error["message"]
        wait_until(lambda: idle(hasty))


def test_a_fault_of_the_engine_is_a_500_without_details(stage: Stage) -> None:
    with on_stage() as broken:
        broken.engine.failing = RuntimeError("secret detail of the machine")
        response = broken.post()
        assert response.status_code == 500
        assert "secret" not in response.text
        assert response.json()["error"]["type"] == "server_error"
        broken.engine.failing = None
        assert broken.post().status_code == 200


def test_an_error_in_a_stream_is_an_event_that_the_client_raises(stage: Stage) -> None:
    with on_stage() as broken:
        broken.says(LONG)
        broken.engine.pause = 0.01
        got = []
        with pytest.raises(openai.APIError, match="its log says why"):  # noqa: PT012 - the point is where it raises
            for chunk in broken.ask(stream=True):
                got.append(chunk)
                if len(got) == 4:
                    broken.engine.failing = RuntimeError("broken")
        assert len(got) >= 4
        broken.engine.failing = None
        raw = broken.post(stream=True, max_tokens=2)
        assert events(raw)[-1] == "[DONE]"


def test_what_the_engine_refuses_is_a_400(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(request: Any) -> int:
        raise ModelError("this prompt cannot be taken")

    monkeypatch.setattr(stage.engine, "submit", refuse)
    assert stage.post().status_code == 400
    last = events(stage.post(stream=True))[-1]
    assert last["error"]["message"] == "this prompt cannot be taken"


def test_many_clients_each_get_their_own_answer(stage: Stage) -> None:
    def answer(request: Any) -> list[int]:
        text = stage.tokenizer.decode(request.prompt_ids).rsplit("user\n", 1)[1].split("<", 1)[0]
        return [*stage.tokenizer(f"you said {text}", add_special_tokens=False)["input_ids"], 2]

    old, stage.engine._answer = stage.engine._answer, answer
    try:
        with ThreadPoolExecutor(16) as pool:
            asked = [f"number {index} 你好" for index in range(48)]
            answers = list(pool.map(lambda text: stage.ask(text, stream=True), asked))
            texts = ["".join(chunk.choices[0].delta.content or "" for chunk in chunks) for chunks in answers]
    finally:
        stage.engine._answer = old
    assert texts == [f"you said {text}" for text in asked]
    wait_until(lambda: idle(stage))


def test_metrics(stage: Stage) -> None:
    stage.ask("count me")
    list(stage.ask("count me", stream=True))
    stage.post(model="nobody")
    httpx.get(f"{stage.url}/made/up/path")
    text = httpx.get(f"{stage.url}/metrics").text
    values = dict(line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))
    assert int(values['tunesmith_http_requests_total{route="/v1/chat/completions",status="200"}']) >= 2
    assert int(values['tunesmith_http_requests_total{route="/v1/chat/completions",status="404"}']) >= 1
    assert "made/up" not in text
    assert int(values["tunesmith_generated_tokens_total"]) >= 10
    assert int(values["tunesmith_prompt_tokens_total"]) >= 10
    first = int(values["tunesmith_time_to_first_token_seconds_count"])
    assert first == int(values['tunesmith_time_to_first_token_seconds_bucket{le="+Inf"}']) >= 2
    assert values["tunesmith_requests_queued"] == "0"
    assert text.count("# TYPE") == text.count("# HELP") > 8


def test_health(stage: Stage) -> None:
    assert httpx.get(f"{stage.url}/health").json() == {"status": "ok", "running": 0, "queued": 0}


def test_the_openapi_document(stage: Stage) -> None:
    document = httpx.get(f"{stage.url}/openapi.json").json()
    assert {"/v1/chat/completions", "/v1/completions", "/v1/models", "/v1/adapters", "/health"} <= set(
        document["paths"]
    )
    fields = document["components"]["schemas"]["ChatRequest"]["properties"]
    assert {"messages", "tools", "stream_options", "repetition_penalty"} <= set(fields)
    assert "422" not in json.dumps(document["paths"])


def test_a_signal_lets_running_streams_finish() -> None:
    """In this very process: uvicorn takes signals on the main thread only, so the client is in another."""
    service, engine, answers = make_stage_parts()
    answers[:] = ["one two three four five six seven"]
    engine.pause = 0.03
    listening = socket.socket()
    listening.bind(("127.0.0.1", 0))
    port = listening.getsockname()[1]
    got: list[str] = []

    def client() -> None:
        for _ in range(500):
            try:
                httpx.get(f"http://127.0.0.1:{port}/health")
                break
            except httpx.ConnectError:
                time.sleep(0.01)
        with httpx.stream(
            "POST", f"http://127.0.0.1:{port}/v1/chat/completions", json={**BODY, "stream": True}
        ) as answer:
            for line in answer.iter_lines():
                got.append(line)
                if len(got) == 3:
                    os.kill(os.getpid(), signal.SIGTERM)

    thread = threading.Thread(target=client)
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    thread.start()
    try:
        with pytest.raises(Interrupted) as stopped:
            serve(build_app(service), service.settings, [listening])
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
        thread.join(10)
        listening.close()
    assert stopped.value.exit_code == 128 + signal.SIGTERM
    assert "data: [DONE]" in got
    text = "".join(json.loads(line[6:])["choices"][0]["delta"].get("content", "") for line in got if line[6:7] == "{")
    assert text == answers[0]
