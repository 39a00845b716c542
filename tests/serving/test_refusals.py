"""Bad input: always 4xx in OpenAI's form, with the field and what to do; never 500, never passed over in silence."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest
from tests.serving.conftest import CONTEXT, MODEL, Stage

USER = {"role": "user", "content": "Hi"}
CALL = {"id": "a", "type": "function", "function": {"name": "f", "arguments": "{}"}}


def refused(response: httpx.Response, status: int = 400) -> dict[str, Any]:
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/json"
    error = response.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert error["message"]
    return dict(error)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"messages": []}, "messages"),
        ({"messages": "Hi"}, "messages"),
        ({"messages": None}, "messages"),
        ({"messages": [{"role": "robot", "content": "x"}]}, "messages[0].role"),
        ({"messages": [{"role": "user"}]}, "messages[0].content is missing"),
        ({"messages": [{"role": "user", "content": 5}]}, "messages[0].content"),
        ({"messages": [{"role": "user", "content": []}]}, "messages[0].content is an empty list"),
        ({"messages": [{"role": "user", "content": [{"type": "text"}]}]}, "messages[0].content[0].text"),
        ({"messages": [{"role": "user", "content": [{"type": "poem", "text": "x"}]}]}, "unknown kind of part 'poem'"),
        ({"messages": [USER, {"role": "assistant", "content": None}, USER]}, "messages[1].content is missing"),
        ({"messages": [USER, {"role": "assistant", "content": "x"}]}, "nothing to answer"),
        ({"messages": [USER, {"role": "system", "content": "x"}]}, "ends with a system message"),
        ({"messages": [USER, {"role": "tool", "content": "x"}]}, "must follow the assistant"),
        ({"messages": [{"role": "function", "name": "f", "content": "x"}]}, "send tool"),
        ({"messages": [{**USER, "tool_calls": [CALL]}]}, "belongs to messages of the role assistant"),
        ({"messages": [{**USER, "tool_call_id": "a"}]}, "belongs to messages of the role tool"),
        ({"messages": [{**USER, "mood": "good"}]}, "unknown field messages[0].mood"),
        ({"temperature": -1}, "temperature"),
        ({"temperature": "hot"}, "temperature"),
        ({"temperature": True}, "temperature"),
        ({"top_p": 1.5}, "top_p"),
        ({"top_k": -2}, "top_k"),
        ({"n": 0}, "n"),
        ({"n": 1000}, "n"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_tokens": 1.5}, "max_tokens"),
        ({"max_tokens": 5, "max_completion_tokens": 6}, "differ"),
        ({"max_tokens": CONTEXT}, "do not fit"),
        ({"stop": ""}, "stop"),
        ({"stop": ["a"] * 17}, "stop"),
        ({"stop": [1]}, "stop"),
        ({"seed": 2**70}, "seed"),
        ({"presence_penalty": 3}, "presence_penalty"),
        ({"repetition_penalty": 0}, "repetition_penalty"),
        ({"top_logprobs": 3}, "needs logprobs"),
        ({"logprobs": True, "top_logprobs": 21}, "top_logprobs"),
        ({"logit_bias": {"x": 1}}, "no token id"),
        ({"logit_bias": {"999999": 1}}, "no token id"),
        ({"stream": "yes"}, "stream"),
        ({"response_format": {"type": "xml"}}, "response_format"),
        ({"response_format": {"type": "json_schema"}}, "schema is missing"),
        (
            {"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": {"uniqueItems": True}}}},
            "uniqueItems: this keyword is not built",
        ),
        ({"chat_template_kwargs": {"enable_thinking": True}}, "no thinking mode"),
        ({"chat_template_kwargs": {"language": "de"}}, "unknown field"),
        ({"enable_thinking": False}, "chat_template_kwargs"),
        ({"store": True}, "stores no answers"),
        ({"service_tier": "priority"}, "one tier"),
        ({"modalities": ["audio"]}, "text only"),
        ({"reasoning_effort": "high"}, "enable_thinking"),
        ({"function_call": "auto"}, "tool_choice"),
        ({"min_p": 0.1}, "min_p"),
        ({"max_token": 5}, "did you mean max_tokens?"),
        ({"temprature": 1}, "did you mean temperature?"),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
def test_chat_requests(stage: Stage, fields: dict[str, Any], said: str, stream: bool) -> None:
    error = refused(stage.post(**{"stream": stream, **fields}))
    assert said in error["message"]
    assert error["type"] == "invalid_request_error"


@pytest.mark.parametrize(
    "fields",
    [
        {"user": "me", "metadata": {"a": "b"}, "safety_identifier": "x", "prompt_cache_key": "k"},
        {"store": False, "service_tier": "auto", "modalities": ["text"], "logit_bias": {}},
        {"temperature": None, "stop": None, "tools": None, "response_format": None, "n": None},
        {"response_format": {"type": "text"}, "chat_template_kwargs": {"enable_thinking": False}},
        {"stream_options": None, "logprobs": False, "parallel_tool_calls": True, "tool_choice": "auto"},
        {"do_sample": False, "top_k": -1, "messages": [{**USER, "name": "Ann"}]},
    ],
)
def test_fields_that_ask_for_nothing_are_taken(stage: Stage, fields: dict[str, Any]) -> None:
    assert stage.post(**fields).status_code == 200


@pytest.mark.parametrize("kind", ["image_url", "video_url", "audio_url", "input_audio", "file"])
def test_media_parts(stage: Stage, kind: str) -> None:
    part = {"type": kind, kind: {"url": "http://127.0.0.1/secret"}}
    error = refused(stage.post(messages=[{"role": "user", "content": [part]}]))
    assert "not built yet" in error["message"]
    assert error["param"] == "messages[0].content[0].type"


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"", "missing"),
        (b"{", "not valid JSON"),
        (b"[]", "object"),
        (b"null", "object"),
        (b'"x"', "object"),
        (b'{"model": "\xff"}', ""),
        (b'{"model": "org/tiny-model", "messages": [{"role": "user", "content": "\\ud800"}]}', "surrogate"),
        (b'{"model": "org/tiny-model", "messages": [{"role": "user", "content": "x"}], "temperature": NaN}', "finite"),
        (
            b'{"model": "org/tiny-model", "messages": [{"role": "user", "content": "x"}], "temperature": 1e999}',
            "finite",
        ),
        (b'{"model": "m", "tools": [{"type": "function", "function": {"name": "f", "x": NaN}}]}', "finite"),
        (b'{"model": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", ""),
        (b'{"model": "m", "metadata": ' + b'{"a":' * 70 + b"1" + b"}" * 71, "nested"),
        (b'{"model": "m", "seed": ' + b"9" * 5000 + b"}", ""),
        (b"\xff\xfe\x00", ""),
    ],
    ids=range(14),
)
def test_bodies(stage: Stage, body: bytes, said: str) -> None:
    headers = {"content-type": "application/json"}
    response = httpx.post(f"{stage.url}/v1/chat/completions", content=body, headers=headers)
    assert said in refused(response)["message"]


def test_arguments_of_earlier_calls_are_checked(stage: Stage) -> None:
    for arguments, said in (("{", "not valid JSON"), ("[1]", "must spell a JSON object"), ('{"a": "\\ud800"}', "JSON")):
        call = {**CALL, "function": {"name": "f", "arguments": arguments}}
        messages = [USER, {"role": "assistant", "content": None, "tool_calls": [call]}, USER]
        assert said in refused(stage.post(messages=messages))["message"]


def test_a_role_order_that_the_template_cannot_write(qwen_stage: Stage) -> None:
    error = refused(qwen_stage.post(messages=[USER, USER]))
    assert "message 2 cannot be the user's here" in error["message"]
    assert error["param"] == "messages"


def test_prompts_longer_than_the_context(stage: Stage) -> None:
    error = refused(stage.post(messages=[{"role": "user", "content": "the quick fox " * 3000}]))
    assert error["code"] == "context_length_exceeded"
    assert str(CONTEXT) in error["message"]


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({}, "prompt is missing"),
        ({"prompt": []}, "prompt"),
        ({"prompt": [[]]}, "prompt"),
        ({"prompt": ""}, "no tokens"),
        ({"prompt": [10**9]}, "no token id"),
        ({"prompt": [-1]}, "no token id"),
        ({"prompt": {"a": 1}}, "prompt"),
        ({"prompt": ["a", 1]}, "prompt"),
        ({"prompt": "a", "suffix": "b"}, "suffix"),
        ({"prompt": "a", "best_of": 3}, "best_of"),
        ({"prompt": "a", "echo": True, "logprobs": 1}, "echo"),
        ({"prompt": ["a"] * 100, "n": 16}, "too many"),
        ({"prompt": "a", "messages": []}, "unknown field messages"),
    ],
)
def test_text_completions(stage: Stage, fields: dict[str, Any], said: str) -> None:
    assert said in refused(stage.post("/v1/completions", model=MODEL, **fields))["message"]


def test_the_model_must_be_named_and_be_there(stage: Stage) -> None:
    response = httpx.post(f"{stage.url}/v1/chat/completions", json={"messages": [USER]})
    assert "model is missing" in refused(response)["message"]
    error = refused(stage.post(model="gpt-4"), 404)
    assert error["code"] == "model_not_found"
    assert MODEL in error["message"]
    assert refused(httpx.get(f"{stage.url}/v1/models/none/such"), 404)["param"] == "model"


def test_paths_and_methods(stage: Stage) -> None:
    assert "GET /v1/nothing" in refused(httpx.get(f"{stage.url}/v1/nothing"), 404)["message"]
    refused(httpx.get(f"{stage.url}/v1/chat/completions"), 405)
    refused(httpx.delete(f"{stage.url}/v1/models"), 405)


def test_several_problems_are_said_at_once(stage: Stage) -> None:
    message = refused(stage.post(temperature="hot", top_p=7, zzz=1))["message"]
    assert "temperature" in message
    assert "top_p" in message
    assert "zzz" in message


def test_long_values_do_not_come_back(stage: Stage) -> None:
    response = stage.post(model="x" * 100_000)
    assert len(refused(response, 404)["message"]) < 1000
    response = stage.post(temperature="x" * 100_000)
    assert len(json.dumps(refused(response))) < 1000
