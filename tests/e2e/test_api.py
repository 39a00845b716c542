"""`tunesmith api` as a process on the real 135M model: the tutorials' calls as printed, JSON, tools, a clean end."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest

pytestmark = [pytest.mark.e2e, pytest.mark.slow]

MODEL = "smollm2-135m"
WEATHER = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "The weather in a city",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}


@contextmanager
def serving(*words: str, **environment: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """The process and its port, which it says itself."""
    command = [sys.executable, "-m", "tunesmith", "api", "--model_name_or_path", MODEL, "--template", "smollm2", *words]
    variables = {**os.environ, "API_PORT": "0", **environment}
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=variables)
    assert process.stderr
    try:
        for line in process.stderr:
            found = re.search(r"serving on http://127\.0\.0\.1:(\d+)", line)
            if found:
                yield process, found.group(1)
                break
        else:
            pytest.fail("the server did not start")
    finally:
        process.kill()
        process.wait()
        process.stderr.close()


@pytest.fixture(scope="module")
def server() -> Iterator[tuple[subprocess.Popen[str], str]]:
    with serving() as running:
        yield running


@pytest.fixture(scope="module")
def client(server: tuple[subprocess.Popen[str], str]) -> Iterator[openai.OpenAI]:
    # as tutorials print it: http://0.0.0.0, and a key that nobody asks for
    with openai.OpenAI(api_key="0", base_url=f"http://0.0.0.0:{server[1]}/v1", timeout=300) as opened:
        yield opened


def test_the_tutorials_client_call(client: openai.OpenAI) -> None:
    messages: Any = [{"role": "user", "content": "Who are you?"}]
    result = client.chat.completions.create(messages=messages, model=MODEL, max_tokens=16)
    assert result.choices[0].message.content


def test_the_tutorials_curl_call(server: tuple[subprocess.Popen[str], str]) -> None:
    body = """{
      "model": "smollm2-135m",
      "messages": [
        {"role": "system", "content": "你是Qwen，由阿里云创建。你是一个乐于助人的助手。"},
        {"role": "user", "content": "你是谁？"}
      ],
      "temperature": 0.7,
      "top_p": 0.8,
      "repetition_penalty": 1.05,
      "max_tokens": 16
    }"""
    url = f"http://localhost:{server[1]}/v1/chat/completions"
    command = ["curl", "-sS", url, "-H", "Content-Type: application/json", "-d", body]
    answer = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    assert answer["choices"][0]["message"]["role"] == "assistant"
    assert answer["usage"]["completion_tokens"] <= 16


def test_a_stream_is_the_whole_answer(client: openai.OpenAI) -> None:
    asked: Any = {"messages": [{"role": "user", "content": "Count to five."}], "model": MODEL, "max_tokens": 20}
    whole = client.chat.completions.create(**asked, temperature=0).choices[0].message.content
    chunks = client.chat.completions.create(**asked, temperature=0, stream=True)
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == whole


def test_json_by_schema_at_a_high_temperature(client: openai.OpenAI) -> None:
    """A model of this size writes no JSON by itself at temperature 2; the grammar makes it."""
    properties = {"name": {"enum": ["Ann", "Bob"]}, "age": {"type": "integer"}, "is_tall": {"type": "boolean"}}
    schema = {"type": "object", "properties": properties, "required": list(properties)}
    wanted: Any = {"type": "json_schema", "json_schema": {"name": "person", "schema": schema}}
    answer = client.chat.completions.create(
        messages=[{"role": "user", "content": "A person."}],
        model=MODEL,
        temperature=2,
        top_p=1,
        n=3,
        seed=1,
        max_tokens=200,
        response_format=wanted,
    )
    for choice in answer.choices:
        assert choice.finish_reason == "stop"
        value = json.loads(choice.message.content or "")
        assert set(value) == set(properties)
        assert isinstance(value["age"], int)


def test_a_call_that_is_demanded(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(
        messages=[{"role": "user", "content": "What is the weather in Paris?"}],
        model=MODEL,
        temperature=0,
        max_tokens=100,
        tools=[WEATHER],  # type: ignore[list-item]
        tool_choice="required",
    )
    assert answer.choices[0].finish_reason == "tool_calls"
    (call,) = answer.choices[0].message.tool_calls or []
    assert call.type == "function"
    assert call.function.name == "weather"
    assert set(json.loads(call.function.arguments)) == {"city"}


def test_a_strict_tool_beside_free_text(client: openai.OpenAI) -> None:
    """The model may answer or call. It begins a call as it did before, with arguments that broke the schema."""
    days = {"type": "integer", "minimum": 1, "maximum": 14}
    parameters = {"type": "object", "properties": {"city": {"enum": ["Paris", "Rome"]}, "days": days}}
    parameters |= {"required": ["city", "days"], "additionalProperties": False}
    history: list[Any] = []
    for place in ("Lyon", "Oslo", "Bonn"):
        call = {"name": "weather", "arguments": json.dumps({"town": place})}
        history += [
            {"role": "user", "content": f"What is the weather in {place}?"},
            {"role": "assistant", "tool_calls": [{"id": place, "type": "function", "function": call}]},
            {"role": "tool", "tool_call_id": place, "content": "sunny"},
            {"role": "assistant", "content": "It is sunny."},
        ]

    def arguments(**strict: bool) -> Any:
        function: Any = {"name": "weather", "parameters": parameters, **strict}
        messages: Any = [*history, {"role": "user", "content": "What is the weather in Madrid?"}]
        tools: Any = [{"type": "function", "function": function}]
        answer = client.chat.completions.create(
            messages=messages, model=MODEL, max_tokens=60, temperature=0, tools=tools
        )
        (call,) = answer.choices[0].message.tool_calls or []
        return json.loads(call.function.arguments)

    assert arguments() == {"town": "Madrid"}
    held = arguments(strict=True)
    assert set(held) == {"city", "days"}
    assert held["city"] in ("Paris", "Rome")
    assert 1 <= held["days"] <= 14


def test_sigterm_ends_it_with_its_number(server: tuple[subprocess.Popen[str], str], client: openai.OpenAI) -> None:
    process, _ = server
    chunks = client.chat.completions.create(
        messages=[{"role": "user", "content": "Tell me a story."}], model=MODEL, max_tokens=12, stream=True
    )
    next(chunks)
    process.send_signal(signal.SIGTERM)
    assert [chunk.choices[0].finish_reason for chunk in chunks][-1] in ("length", "stop")
    assert process.wait(60) == 128 + signal.SIGTERM


QUESTION = "Who are you, and what can you do?"


@pytest.fixture(scope="module")
def saves(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two adapters, each trained for two steps by the command, hard enough to change what the model says."""
    folder = tmp_path_factory.mktemp("saves")
    for name, rate in (("one", "5e-3"), ("two", "1e-2")):
        words = ["--model_name_or_path", MODEL, "--template", "smollm2", "--do_train", "--dataset", "identity"]
        words += [
            "--max_steps",
            "2",
            "--per_device_train_batch_size",
            "2",
            "--max_samples",
            "8",
            "--lora_target",
            "all",
        ]
        words += ["--learning_rate", rate, "--lr_scheduler_type", "constant", "--output_dir", str(folder / name)]
        command = [sys.executable, "-m", "tunesmith", "train", *words]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr[-2000:]
    return folder


def expected(adapter: Path | None) -> str:
    """What the model says with the adapter on it for good."""
    from tunesmith.config.schema import RunConfig
    from tunesmith.core.types import Message
    from tunesmith.inference.engine import SamplingParams
    from tunesmith.inference.opening import open_model

    keys: dict[str, Any] = {"model_name_or_path": MODEL, "template": "smollm2"}
    if adapter is not None:
        keys["adapter_name_or_path"] = str(adapter)
    opened = open_model(RunConfig.from_dict(keys, command="chat"), batch_size=1)
    request = opened.form.request([Message("user", QUESTION)], SamplingParams(do_sample=False, max_new_tokens=12))
    return "".join(opened.form.stream(opened.engine, request))


def test_base_and_adapters_side_by_side(saves: Path) -> None:
    """A trained adapter by the configuration, another one loaded while serving, the bare base: each as if alone."""
    one, two = saves / "one", saves / "two"
    texts = {name: expected(adapter) for name, adapter in (("base", None), ("one", one), ("two", two))}
    assert len(set(texts.values())) == 3
    with (
        serving("--adapter_name_or_path", str(one), API_ADAPTER_DIR=str(saves)) as (_, port),
        openai.OpenAI(api_key="0", base_url=f"http://127.0.0.1:{port}/v1", timeout=300) as client,
    ):

        def said(model: str) -> str:
            messages: Any = [{"role": "user", "content": QUESTION}]
            answer = client.chat.completions.create(messages=messages, model=model, temperature=0, max_tokens=12)
            return answer.choices[0].message.content or ""

        def load(name: str, path: Path) -> int:
            return httpx.post(f"{client.base_url}adapters", json={"name": name, "path": str(path)}).status_code

        assert {MODEL, str(one), "base"} <= {model.id for model in client.models.list().data}
        assert load("mine", two) == 201
        names = {MODEL: "one", str(one): "one", "base": "base", "mine": "two"}
        with ThreadPoolExecutor(4) as pool:
            assert list(pool.map(said, names)) == [texts[meant] for meant in names.values()]
        assert load("mine", one) == 200
        assert said("mine") == texts["one"]
        assert httpx.delete(f"{client.base_url}adapters/mine").status_code == 200
        with pytest.raises(openai.NotFoundError):
            said("mine")
