"""The server put together, and run until a signal stops it. The only way in is `run(config)`."""

from __future__ import annotations

import logging
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from http import HTTPStatus
from types import FrameType
from typing import TYPE_CHECKING, Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware

from tunesmith import __version__
from tunesmith.core.errors import Interrupted, ServingError
from tunesmith.core.log import get_logger
from tunesmith.core.net import listen_on
from tunesmith.serving.errors import ApiError, internal_error, of_validation
from tunesmith.serving.fields import RequestBody
from tunesmith.serving.gate import Gate
from tunesmith.serving.job import GoneError
from tunesmith.serving.requests import AdapterRequest, ChatRequest, CompletionRequest, ScoreRequest
from tunesmith.serving.routes import router
from tunesmith.serving.service import Service
from tunesmith.serving.settings import ServerSettings

if TYPE_CHECKING:
    import uvicorn

    from tunesmith.config.schema import RunConfig

_CLOSED_REQUEST = 499
_BODIES: dict[str, type[RequestBody]] = {
    "/v1/chat/completions": ChatRequest,
    "/v1/completions": CompletionRequest,
    "/v1/score/evaluation": ScoreRequest,
    "/v1/adapters": AdapterRequest,
}
_logger = get_logger(__name__)


def build_app(service: Service) -> FastAPI:
    """The ASGI application over a service; closing it closes the service."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        yield
        service.close()

    settings = service.settings
    app = FastAPI(
        title="Tunesmith",
        version=__version__,
        description="OpenAI-compatible API of a Tunesmith model.",
        redoc_url=None,
        lifespan=lifespan,
    )
    app.state.service = service
    app.include_router(router)
    app.add_exception_handler(ApiError, _on_api_error)
    app.add_exception_handler(GoneError, _on_gone)
    app.add_exception_handler(RequestValidationError, _on_bad_body)
    app.add_exception_handler(HTTPException, _on_http_error)
    app.add_middleware(Gate, settings=settings, metrics=service.metrics)
    if settings.cors_origins:
        # Outermost, so that a page can read refusals, too.
        app.add_middleware(
            CORSMiddleware,
            allow_origins=list(settings.cors_origins),
            allow_methods=["GET", "POST", "DELETE"],
            allow_headers=["Authorization", "Content-Type"],
        )
    return app


async def _on_api_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, ApiError)
    return JSONResponse(error.body, error.status, headers=error.headers)


async def _on_gone(request: Request, error: Exception) -> Response:
    request.app.state.service.metrics.disconnects += 1
    return Response(status_code=_CLOSED_REQUEST)


async def _on_bad_body(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    body = _BODIES.get(getattr(request.scope.get("route"), "path", ""))
    return await _on_api_error(request, of_validation(error.errors(), body.known() if body else []))


async def _on_http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    status = error.status_code
    said = str(error.detail)
    if status == HTTPStatus.NOT_FOUND:
        said = f"there is no {request.method} {request.url.path[:200]} here; GET /docs lists what is"
    if status == HTTPStatus.METHOD_NOT_ALLOWED:
        said = f"{request.method} is not for this address; GET /docs lists what is"
    answer = ApiError(status, said, headers=error.headers)
    return await _on_api_error(request, answer if status < HTTPStatus.INTERNAL_SERVER_ERROR else internal_error())


def run(config: RunConfig) -> None:
    """Loads the model and serves it until SIGINT or SIGTERM; running answers are finished.

    Raises:
        ServingError: the address cannot be had, or must not be without a key.
        Interrupted: a signal ended it, as it should.
    """
    settings = ServerSettings.from_env()
    sockets = [_bound(settings)]  # before the model: a port in use must not cost its loading
    serve(build_app(_load(config, settings)), settings, sockets)


def _load(config: RunConfig, settings: ServerSettings) -> Service:
    if config.stage == "rm":
        from tunesmith.serving.reward import load_reward_service

        return load_reward_service(config, settings)
    from tunesmith.serving.start import load_service

    return load_service(config, settings)


def _bound(settings: ServerSettings) -> Any:
    try:
        return listen_on(settings.host, settings.port)
    except OSError as error:
        raise ServingError(
            f"cannot listen on {settings.host}:{settings.port}: {error}; choose with API_HOST and API_PORT"
        ) from error


def server_config(app: FastAPI, settings: ServerSettings) -> uvicorn.Config:
    """How uvicorn runs: it logs nothing of its own, and finishes what is under way before it ends."""
    import uvicorn

    return uvicorn.Config(
        app,
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_keep_alive=30,
        timeout_graceful_shutdown=max(1, int(settings.timeout)),
    )


def serve(app: FastAPI, settings: ServerSettings, sockets: list[Any]) -> None:
    """Serves until a signal.

    Raises:
        Interrupted: with the signal's number.
    """
    import uvicorn

    logging.getLogger("uvicorn").setLevel(logging.ERROR)
    server = uvicorn.Server(server_config(app, settings))
    host, port = sockets[0].getsockname()[:2]
    shown = f"[{host}]" if ":" in host else host
    caught = _catch_signals(server)
    _logger.info("serving on http://%s:%d%s (docs: /docs); Ctrl-C stops", shown, port, settings.root_path)
    server.run(sockets=sockets)
    if caught:
        raise Interrupted("the server has stopped; running answers were finished", caught[0])


def _catch_signals(server: uvicorn.Server) -> list[int]:
    """Makes uvicorn leave the process alive after a signal, so that it ends with our exit status.

    uvicorn takes the handlers over while it runs, and raises the signal again for those that it found.
    """
    caught: list[int] = []

    def note(number: int, frame: FrameType | None) -> None:
        caught.append(number)
        server.should_exit = True

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, note)
    return caught
