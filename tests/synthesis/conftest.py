"""A fake OpenAI-compatible endpoint on loopback: real HTTP, answers out of the prompt, faults in any share."""

from __future__ import annotations

import json
import random
import re
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

BOOK = Path(__file__).parents[2] / "examples" / "data" / "book"
_FOCUS = re.compile(r"^\d+\. .*(?:：“(.*)”|: \"(.*)\")$", re.MULTILINE)
Answer = Callable[[dict[str, Any]], str]


def entries_for(prompt: str) -> list[dict[str, str]]:
    """An entry for each place that the prompt points at; the answer says what stands there."""
    found = []
    for number, match in enumerate(_FOCUS.finditer(prompt)):
        focus = (match[1] or match[2] or "").removesuffix("...")
        if match[1] is not None:
            question = f"为什么会有这样的事：{focus}"
            answer = f"因为事情是这样的：{focus}（其一）"
        else:
            question = f"Why is it so ({number}): {focus}"
            answer = f"Because it is like this: {focus}"
        found.append({"question": question, "answer": answer, "quote": focus})
    return found


def usual(body: dict[str, Any]) -> str:
    """A good answer to a call for entries."""
    return json.dumps(entries_for(body["messages"][-1]["content"]), ensure_ascii=False)


class Endpoint:
    """One server.

    Attributes:
        answer: text for a request's body.
        faults: share of requests that go wrong.
        requests: bodies, in order.
        answered: idempotency key -> times that a whole answer was sent.
        seen: what went wrong, by kind.
    """

    def __init__(self) -> None:
        self.answer: Answer = usual
        self.faults = 0.0
        self.status: int | None = None
        self.headers: dict[str, str] = {}
        self.said = "no"
        self.delay = 0.0
        self.usage = True
        self.cut = False
        self.requests: list[dict[str, Any]] = []
        self.keys: list[str] = []
        self.tokens: list[str] = []
        self.answered: Counter[str] = Counter()
        self.seen: Counter[str] = Counter()
        self.underway = self.most_underway = 0
        self.lock = threading.Lock()
        self.dice = random.Random(5)
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self.server.daemon_threads = True
        self.server.handle_error = lambda request, address: None  # clients that are killed hang up
        self.thread = threading.Thread(target=lambda: self.server.serve_forever(poll_interval=0.01), daemon=True)
        self.thread.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server.server_port}/v1"

    def fault(self) -> str:
        with self.lock:
            if self.dice.random() >= self.faults:
                return ""
            kind = self.dice.choice(["slow", "429", "500", "cut", "prose", "drop", "empty", "unsupported", "html"])
            self.seen[kind] += 1
            return kind

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()


def _handler(endpoint: Endpoint) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *args: Any) -> None:
            pass

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            key = self.headers.get("Idempotency-Key", "")
            with endpoint.lock:
                endpoint.requests.append(body)
                endpoint.keys.append(key)
                endpoint.tokens.append(self.headers.get("Authorization", ""))
                endpoint.underway += 1
                endpoint.most_underway = max(endpoint.most_underway, endpoint.underway)
            try:
                self.respond(body, key)
            except (BrokenPipeError, ConnectionResetError):
                self.close_connection = True
            finally:
                with endpoint.lock:
                    endpoint.underway -= 1

        def respond(self, body: dict[str, Any], key: str) -> None:
            time.sleep(endpoint.delay)
            if endpoint.status:
                self.send(endpoint.status, json.dumps({"error": {"message": endpoint.said}}), endpoint.headers)
                return
            kind = endpoint.fault()
            if kind == "slow":
                time.sleep(0.7)
            if kind == "drop":
                self.close_connection = True
                return
            if kind in ("429", "500"):
                wait = {"Retry-After": "0.05"} if kind == "429" else {}
                self.send(int(kind), '{"error": {"message": "not now"}}', wait)
                return
            if kind == "html":
                self.send(200, "<html>bad gateway</html>")
                return
            text = dressed(endpoint.answer(body), kind, endpoint.dice)
            usage = {"prompt_tokens": 100, "completion_tokens": 10} if endpoint.usage else None
            choice = {
                "message": {"role": "assistant", "content": text},
                "finish_reason": "length" if endpoint.cut else "stop",
            }
            self.send(200, json.dumps({"choices": [choice], "usage": usage}))
            with endpoint.lock:
                endpoint.answered[key] += 1

        def send(self, status: int, text: str, headers: dict[str, str] | None = None) -> None:
            data = text.encode()
            self.send_response(status)
            for name, value in {"Content-Length": str(len(data)), **(headers or {})}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(data)

    return Handler


def dressed(text: str, kind: str, dice: random.Random) -> str:
    """The answer as models dress it up, or spoilt."""
    if kind == "cut":
        return text[: len(text) * 2 // 3]
    if kind == "prose":
        return "I am sorry, but I cannot do that."
    if kind == "empty":
        return ""
    if kind == "unsupported":
        return json.dumps([{"question": "Why do whales sing?", "answer": "Zebras juggle xylophones brilliantly."}] * 9)
    way = dice.randrange(4) if text.startswith("[") else 3
    if way == 0:
        return f"```json\n{text}\n```"
    if way == 1:
        return f"<think>What is [asked] {{here}}?</think>\nSure:\n{text}"
    return text.replace("}]", "},]") if way == 2 else text


@pytest.fixture
def endpoint() -> Iterator[Endpoint]:
    one = Endpoint()
    yield one
    one.close()


@pytest.fixture(autouse=True)
def apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder of its own, and an environment that names no endpoint."""
    monkeypatch.chdir(tmp_path)
    for name in ("BASE_URL", "API_KEY", "MODEL", "OPENAI_API_KEY", "OPENAI_BASE_URL", "DEEPSEEK_API_KEY"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def settings(endpoint: Endpoint) -> dict[str, Any]:
    """Keys of `data make` for the fake endpoint."""
    return {
        "input_file_path": str(BOOK / "harbour_novel.txt"),
        "base_url": endpoint.url,
        "generator_model": "fake",
        "chunk_tokens": 300,
        "entries_per_chunk": 4,
        "entries_per_call": 2,
        "output_dir": "out",
        "retry_wait": 0.01,
        "request_timeout": 20,
    }
