"""The routes: each reads a body, asks the service, and shapes the reply."""

from __future__ import annotations

import uuid
from http import HTTPStatus
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, PlainTextResponse, Response

from tunesmith.inference.answer import News
from tunesmith.serving import replies
from tunesmith.serving.adapters import drop_adapter, put_adapter
from tunesmith.serving.job import Job, collect
from tunesmith.serving.replies import Envelope, JsonObject
from tunesmith.serving.requests import AdapterRequest, ChatRequest, CompletionRequest, ScoreRequest
from tunesmith.serving.service import Service
from tunesmith.serving.streams import EventStream, events

_ERROR = {
    "type": "object",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["message", "type", "param", "code"],
            "properties": {
                "message": {"type": "string"},
                "type": {"type": "string"},
                "param": {"type": ["string", "null"]},
                "code": {"type": ["string", "null"]},
            },
        }
    },
}
_CONTENT = {"application/json": {"schema": _ERROR}}
ERRORS: dict[int | str, dict[str, Any]] = {
    "4XX": {"description": "The request is at fault, or too many wait; `error` says why.", "content": _CONTENT},
    "5XX": {"description": "The server is at fault, or the time is over.", "content": _CONTENT},
}
STREAMED: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "The answer; with `stream` as server-sent events.",
        "content": {"text/event-stream": {}},
    }
}
router = APIRouter(responses=ERRORS)


def service_of(request: Request) -> Service:
    """The server's service."""
    service: Service = request.app.state.service
    return service


@router.post("/v1/chat/completions", tags=["answers"], responses=STREAMED)
async def chat(request: Request, body: ChatRequest) -> Response:
    """Answers a conversation, whole or as a stream of server-sent events."""
    service = service_of(request)
    service.log("POST /v1/chat/completions", body.model_dump(exclude_none=True))
    job = await service.chat(body)
    text_of, with_logprobs = service.dialect.token_text, bool(body.logprobs)
    if body.stream:
        envelope = Envelope("chat.completion.chunk", body.model, text_of)
        opening = [replies.first_delta(index) for index in range(len(job.readers))]

        def choices(index: int, news: News) -> list[JsonObject]:
            return replies.chat_deltas(index, news, text_of, with_logprobs)

        return EventStream(events(job, envelope, body, opening, choices), job)
    parts = await collect(job, request)
    answers = [replies.chat_choice(index, news, text_of, with_logprobs) for index, news in enumerate(parts)]
    return _reply(service, job, Envelope("chat.completion", body.model, text_of), answers)


@router.post("/v1/completions", tags=["answers"], responses=STREAMED)
async def complete(request: Request, body: CompletionRequest) -> Response:
    """Goes on with a text, whole or as a stream of server-sent events."""
    service = service_of(request)
    service.log("POST /v1/completions", body.model_dump(exclude_none=True))
    job, prompts = await service.complete(body)
    width = len(job.readers) // len(prompts)
    echoes = [prompts[index // width] if body.echo else "" for index in range(len(job.readers))]
    envelope = Envelope("text_completion", body.model, service.dialect.token_text, "cmpl")
    written = [0] * len(job.readers)

    def choice(index: int, *news: News) -> JsonObject:
        text = "".join(piece.content for piece in news)
        entries = [entry for piece in news for entry in piece.logprobs]
        logprobs = None
        if body.logprobs is not None:
            logprobs = replies.text_logprobs(entries, service.dialect.token_text, written[index])
        written[index] += len(text)
        return replies.text_choice(index, text, news, logprobs)

    if body.stream:
        opening = [replies.text_choice(i, text, [News()], None) for i, text in enumerate(echoes) if text]
        return EventStream(events(job, envelope, body, opening, lambda i, news: [choice(i, news)]), job)
    parts = await collect(job, request)
    answers = [choice(index, *news) for index, news in enumerate(parts)]
    for answer, echo in zip(answers, echoes, strict=True):
        answer["text"] = echo + answer["text"]
    return _reply(service, job, envelope, answers)


def _reply(service: Service, job: Job, envelope: Envelope, choices: list[JsonObject]) -> Response:
    body = envelope.around(choices, usage=replies.usage(job.prompt_tokens, job.generated_tokens))
    service.log("reply", body)
    return JSONResponse(body)


@router.get("/v1/models", tags=["models"])
async def models(request: Request) -> dict[str, Any]:
    """Every name that may be asked for: the configured model, its bare base, adapters."""
    return service_of(request).names.listed()


@router.get("/v1/models/{name:path}", tags=["models"])
async def model(request: Request, name: str) -> dict[str, Any]:
    """One of these names."""
    return service_of(request).names.shown(name)


@router.get("/v1/adapters", tags=["models"])
async def adapters(request: Request) -> dict[str, Any]:
    """Adapters that were loaded while serving."""
    return service_of(request).names.listed(live_only=True)


@router.post("/v1/adapters", tags=["models"], status_code=HTTPStatus.CREATED)
async def add_adapter(request: Request, body: AdapterRequest, response: Response) -> dict[str, Any]:
    """Loads an adapter, or replaces the one of that name; answers under way finish with the old weights."""
    shown, is_new = await put_adapter(service_of(request), body.name, body.path)
    response.status_code = HTTPStatus.CREATED if is_new else HTTPStatus.OK
    return shown


@router.delete("/v1/adapters/{name:path}", tags=["models"])
async def remove_adapter(request: Request, name: str) -> dict[str, Any]:
    """Drops an adapter; answers under way finish with it."""
    await drop_adapter(service_of(request), name)
    return {"id": name, "object": "model", "deleted": True}


@router.post("/v1/score/evaluation", tags=["answers"])
async def score(request: Request, body: ScoreRequest) -> Response:
    """What a reward model (stage: rm) makes of whole texts, prompt and answer with the template's marks."""
    service = service_of(request)
    service.log("POST /v1/score/evaluation", body.model_dump(exclude_none=True))
    scores = await service.score(body)
    reply = {
        "id": f"scoreval-{uuid.uuid4().hex}",
        "object": "score.evaluation",
        "model": body.model,
        "scores": scores,
    }
    service.log("reply", reply)
    return JSONResponse(reply)


@router.get("/health", tags=["server"])
async def health(request: Request) -> dict[str, Any]:
    """Whether the server answers, and what it does."""
    stats = service_of(request).runner.stats()
    return {"status": "ok", "running": stats.running, "queued": stats.queued}


@router.get("/metrics", tags=["server"], response_class=PlainTextResponse)
async def metrics(request: Request) -> PlainTextResponse:
    """Counters in Prometheus' text form."""
    service = service_of(request)
    stats = service.runner.stats()
    gauges = {
        "requests_running": ("Answers under way in the engine.", float(stats.running)),
        "requests_queued": ("Answers that wait for a place.", float(stats.queued)),
        "slots": ("Answers that can be under way together.", float(stats.engine.slots)),
        "tokens_per_second": ("Tokens made a second, over the last ten.", stats.tokens_per_second),
        "cached_prompt_tokens": (
            "Prompt tokens that the prefix cache held, so far.",
            float(stats.engine.cached_tokens),
        ),
        "cache_bytes": ("Keys and values in memory.", float(stats.engine.cache_bytes)),
    }
    return PlainTextResponse(service.metrics.text(gauges), media_type="text/plain; version=0.0.4")
