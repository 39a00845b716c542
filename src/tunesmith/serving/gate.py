"""What stands before every route, as plain ASGI: who may come in, how much they may bring, and what is counted."""

from __future__ import annotations

import asyncio
import hmac
from http import HTTPStatus
from typing import Any

from starlette.datastructures import Headers
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from tunesmith.core.log import get_logger
from tunesmith.core.net import is_local_name, name_of
from tunesmith.serving.errors import ApiError, internal_error
from tunesmith.serving.metrics import Metrics
from tunesmith.serving.settings import ServerSettings

OPEN_PATHS = frozenset({"/health", "/docs", "/openapi.json", "/docs/oauth2-redirect"})
"""Say nothing about anyone: no key is asked for."""
BODY_SECONDS = 30.0
"""A body that takes longer to arrive is given up."""
_UNKNOWN_ROUTE = "other"
_logger = get_logger(__name__)


class Gate:
    """Checks host, key, content type and size; holds the whole body, so that routes never wait for a slow sender.

    Args:
        app: what stands behind.
        settings: of the server.
        metrics: counts requests.
    """

    def __init__(self, app: ASGIApp, settings: ServerSettings, metrics: Metrics) -> None:
        self._app = app
        self._settings = settings
        self._metrics = metrics
        self._key = None if settings.api_key is None else settings.api_key.encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                await self._app(scope, receive, send)
            return
        scope["root_path"] = self._settings.root_path
        counted = _CountedSend(send)
        try:
            headers = Headers(scope=scope)
            self._check(scope, headers)
            body = await self._body(scope, headers, receive)
            await self._app(scope, _replay(body, receive), counted)
        except ApiError as error:
            await _answer(error, scope, receive, counted)
        except _GoneError:
            self._metrics.disconnects += 1
        except Exception:
            _logger.exception("a request to %s failed", _route(scope))
            if not counted.status:
                await _answer(internal_error(), scope, receive, counted)
        finally:
            if counted.status:
                self._metrics.requests[_route(scope), counted.status] += 1

    def _check(self, scope: Scope, headers: Headers) -> None:
        if self._key is None:
            self._check_host(headers)
        elif scope["path"].removeprefix(self._settings.root_path) not in OPEN_PATHS:
            self._check_key(headers)
        if scope["method"] == "POST":
            kind = headers.get("content-type", "").partition(";")[0].strip().lower()
            if kind != "application/json" and not kind.endswith("+json"):
                # Also what keeps other sites' pages out: a browser sends JSON across origins only after asking.
                raise ApiError(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "send JSON, with Content-Type: application/json")

    def _check_key(self, headers: Headers) -> None:
        scheme, _, given = headers.get("authorization", "").partition(" ")
        given = given.strip()
        # Headers are latin-1 on the way in; a key may hold any character.
        is_right = hmac.compare_digest(given.encode("latin-1", "replace"), self._key or b"")
        if scheme.lower() != "bearer" or not is_right:
            raise ApiError(
                HTTPStatus.UNAUTHORIZED,
                "the API key is missing or wrong: send Authorization: Bearer KEY",
                code="invalid_api_key",
                headers={"WWW-Authenticate": "Bearer"},
            )

    def _check_host(self, headers: Headers) -> None:
        """Without a key, a web page that names its own host after this machine must not get in (DNS rebinding)."""
        name = name_of(headers.get("host", ""))
        if is_local_name(name) or name == self._settings.host:
            return
        raise ApiError(
            HTTPStatus.FORBIDDEN,
            "without API_KEY this server answers to localhost only; set API_KEY to use other names",
        )

    async def _body(self, scope: Scope, headers: Headers, receive: Receive) -> bytes:
        if scope["method"] in ("GET", "HEAD", "OPTIONS"):
            return b""
        limit = self._settings.max_body
        length = headers.get("content-length", "0")
        if length.isdigit() and int(length) > limit:
            raise _too_large(limit)
        try:
            async with asyncio.timeout(BODY_SECONDS):
                return await _read(receive, limit)
        except TimeoutError as error:
            raise ApiError(HTTPStatus.REQUEST_TIMEOUT, "the body did not arrive in time") from error


class _GoneError(Exception):
    """The client went away while it was sending."""


class _CountedSend:
    """Passes messages on and notes the status."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self.status = 0

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = int(message["status"])
        await self._send(message)


async def _read(receive: Receive, limit: int) -> bytes:
    body = bytearray()
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise _GoneError
        body += message.get("body", b"")
        if len(body) > limit:
            raise _too_large(limit)
        if not message.get("more_body"):
            return bytes(body)


def _too_large(limit: int) -> ApiError:
    return ApiError(
        HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
        f"the body is larger than {limit / 1e6:g} MB (API_MAX_BODY_MB)",
        code="request_too_large",
        headers={"Connection": "close"},
    )


def _replay(body: bytes, receive: Receive) -> Receive:
    """Gives the body again, then whatever else comes: the client going away."""
    is_given = False

    async def again() -> Message:
        nonlocal is_given
        if is_given:
            return await receive()
        is_given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return again


async def _answer(error: ApiError, scope: Scope, receive: Receive, send: Any) -> None:
    await JSONResponse(error.body, error.status, headers=error.headers)(scope, receive, send)


def _route(scope: Scope) -> str:
    """The route's pattern, never the path itself: what clients send must not become a label."""
    return str(getattr(scope.get("route"), "path", _UNKNOWN_ROUTE))
