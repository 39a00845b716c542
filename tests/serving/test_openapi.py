"""schemathesis against the server's own OpenAPI document: no 5xx, no hang, and every reply is one that it declares."""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st
from schemathesis import GenerationMode, checks
from tests.serving.conftest import MODEL, Stage, make_stage_parts, on_stage

from tunesmith.serving.app import build_app
from tunesmith.serving.fields import INERT

EXAMPLES = 40
"""Requests for each operation and way of making them; the whole file stays well below a minute."""
MOST_SECONDS = 10.0
"""A reply that takes longer is a hang: the fake engine answers at once."""
REFUSED = {name for name, *_ in INERT} | {"logit_bias", "max_completion_tokens", "top_logprobs"}
CHECKS = [
    checks.not_a_server_error,
    checks.status_code_conformance,
    checks.content_type_conformance,
    checks.response_schema_conformance,
]


@functools.cache
def document() -> dict[str, Any]:
    """The OpenAPI document, without a server."""
    service, _, _ = make_stage_parts()
    try:
        return build_app(service).openapi()
    finally:
        service.close()


OPERATIONS = [
    (method.upper(), path) for path, methods in document()["paths"].items() for method in methods if method != "head"
]


@pytest.fixture(scope="module")
def running() -> Iterator[Stage]:
    with on_stage() as stage:
        stage.says("Hello!", "<b>", "{}")
        yield stage


def answerable(body: dict[str, Any], is_plain: bool) -> dict[str, Any]:
    """A body without what is known to be refused, so that the rest of it is reached."""
    kept = {name: value for name, value in body.items() if name not in REFUSED}
    if "model" in kept:
        kept["model"] = MODEL
    if is_plain and "messages" in kept:
        kept["messages"] = [{"role": "user", "content": "Hi"}]
        kept = {name: value for name, value in kept.items() if name not in ("tools", "tool_choice", "response_format")}
    return kept


@pytest.mark.parametrize("mode", list(GenerationMode), ids=lambda mode: mode.value)
@pytest.mark.parametrize(("method", "path"), OPERATIONS)
def test_any_request(running: Stage, method: str, path: str, mode: GenerationMode) -> None:
    if mode is GenerationMode.NEGATIVE and method != "POST":
        assert "requestBody" not in document()["paths"][path][method.lower()]
        return  # there is nothing that could be sent wrongly
    schema = schemathesis.openapi.from_dict(document())
    schema.config.update(base_url=running.url)
    cases = schema[path][method].as_strategy(generation_mode=mode)
    statuses = Counter()

    @seed(0)
    @settings(max_examples=EXAMPLES, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(st.data())
    def send(data: st.DataObject) -> None:
        case = data.draw(cases)
        if mode is GenerationMode.POSITIVE and isinstance(case.body, dict):
            case.body = answerable(case.body, data.draw(st.booleans()))
        response = case.call(timeout=MOST_SECONDS)
        statuses[response.status_code] += 1
        case.validate_response(response, checks=CHECKS)

    send()
    if mode is GenerationMode.POSITIVE and path.endswith("completions"):
        assert statuses[200] > 0
    assert httpx.get(f"{running.url}/health").json() == {"status": "ok", "running": 0, "queued": 0}


def test_all_operations_are_there() -> None:
    assert len(OPERATIONS) >= 10
    assert ("POST", "/v1/chat/completions") in OPERATIONS
