"""Whatever is sent: an answer or a 4xx in OpenAI's form, never a 5xx and never nothing."""

from __future__ import annotations

from typing import Any

import httpx
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.serving.conftest import MODEL, Stage

from tunesmith.serving.requests import ChatRequest, CompletionRequest

_LEAVES = (
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=20)
)
VALUES = st.recursive(
    _LEAVES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3)
)
_ROLES = st.sampled_from(["system", "developer", "user", "assistant", "tool", "function", "x"])
MESSAGES = st.lists(
    st.fixed_dictionaries(
        {"role": _ROLES},
        optional={
            "content": st.text(max_size=30) | VALUES,
            "tool_calls": VALUES,
            "tool_call_id": st.text(max_size=3),
            "name": st.text(max_size=5),
        },
    ),
    max_size=4,
)
SCHEMAS = st.recursive(
    st.sampled_from(
        [{"type": "string"}, {"type": "integer"}, {"enum": [1, "a"]}, {}, True, {"type": []}, {"pattern": 1}]
    ),
    lambda inner: (
        st.fixed_dictionaries({"type": st.just("object"), "properties": st.dictionaries(st.text(), inner, max_size=3)})
        | st.fixed_dictionaries({"type": st.just("array"), "items": inner})
        | st.fixed_dictionaries({"anyOf": st.lists(inner, max_size=3)})
    ),
    max_leaves=5,
)
_TOOLS = st.lists(
    st.fixed_dictionaries(
        {"type": st.just("function"), "function": st.fixed_dictionaries({"name": st.text(), "parameters": SCHEMAS})}
    ),
    max_size=2,
)
_MANY = settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))


def check(response: httpx.Response) -> None:
    assert response.status_code < 500, response.text
    if response.status_code >= 400:
        assert response.json()["error"]["message"]


@_MANY
@given(st.dictionaries(st.sampled_from(ChatRequest.known()), VALUES, max_size=4))
def test_any_value_in_any_field(stage: Stage, fields: dict[str, Any]) -> None:
    check(stage.post(**fields))


@_MANY
@given(MESSAGES)
def test_any_messages(stage: Stage, messages: list[Any]) -> None:
    check(stage.post(messages=messages))


@_MANY
@given(_TOOLS, st.sampled_from(["auto", "required", "none", None]))
def test_any_tools(qwen_stage: Stage, tools: list[Any], choice: str | None) -> None:
    check(qwen_stage.post(tools=tools, tool_choice=choice, max_tokens=5))


@_MANY
@given(SCHEMAS)
def test_any_schema(stage: Stage, schema: Any) -> None:
    check(stage.post(response_format={"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}))


@_MANY
@given(st.dictionaries(st.sampled_from(CompletionRequest.known()), VALUES, max_size=4))
def test_any_text_completion(stage: Stage, fields: dict[str, Any]) -> None:
    check(stage.post("/v1/completions", **{"model": MODEL, "prompt": "a", **fields}))
