"""What stands before every page, as plain ASGI: who may come in, from which page, with how much."""

from __future__ import annotations

import hmac
from http import HTTPStatus
from urllib.parse import parse_qs, urlencode, urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import cookie_parser
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from tunesmith.core.net import is_local_name, name_of
from tunesmith.studio.settings import PageSettings

COOKIE = "tunesmith_page"
MOST_BODY = 64_000_000
"""Bytes of one request; uploads come in one."""
_READING = frozenset({"GET", "HEAD", "OPTIONS"})
_BY_GRADIO = "/gradio_api/startup-events"
"""Asked by Gradio itself when it starts; it says yes and nothing else."""
_HEADERS = {
    "x-content-type-options": "nosniff",
    "x-frame-options": "SAMEORIGIN",
    "referrer-policy": "same-origin",
}


class PageGate:
    """Checks host, origin, token and size.

    Without a password the page answers to this machine's own names only, so that a web page elsewhere that gives its
    name this machine's address gets nothing (DNS rebinding). What changes anything must come from the page itself.

    Args:
        app: what stands behind.
        settings: of the page server.
    """

    def __init__(self, app: ASGIApp, settings: PageSettings) -> None:
        self._app = app
        self._settings = settings

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        answer = self._refusal(scope, headers) or self._entrance(scope, headers)
        if answer is not None:
            if scope["type"] == "http":
                await answer(scope, receive, send)
            return  # a websocket that nobody accepts is closed
        try:
            await self._app(scope, _Counted(receive), _marked(send))
        except _TooMuchError:
            await _too_large()(scope, receive, send)

    def _refusal(self, scope: Scope, headers: Headers) -> Response | None:
        settings = self._settings
        host = headers.get("host", "")
        is_open = not (settings.auth or settings.token)
        if is_open and not is_local_name(name_of(host)) and name_of(host) != settings.host.strip("[]"):
            return _refused("without --auth or --token this page answers to localhost only")
        if scope["type"] == "websocket" or scope["method"] not in _READING:
            origin = headers.get("origin")
            hosts = {host, headers.get("x-forwarded-host", host)}
            if origin is not None and urlsplit(origin).netloc not in hosts:
                return _refused("this comes from another page")
            if headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none"):
                return _refused("this comes from another page")
        length = headers.get("content-length", "0")
        return _too_large() if length.isdigit() and int(length) > MOST_BODY else None

    def _entrance(self, scope: Scope, headers: Headers) -> Response | None:
        """With a token: lets the browser in that brings it in the address, and remembers that in a cookie."""
        token = self._settings.token
        if not token or scope["path"] == _BY_GRADIO:
            return None
        cookies = cookie_parser(headers.get("cookie", ""))
        if _same(cookies.get(COOKIE, ""), token):
            return None
        asked = parse_qs(scope.get("query_string", b"").decode("latin-1"))
        if not _same(asked.pop("token", [""])[0], token):
            text = "this page asks for a token: open it as http://.../?token=TOKEN"
            return PlainTextResponse(text, HTTPStatus.UNAUTHORIZED, headers=_HEADERS)
        rest = urlencode(asked, doseq=True)
        target = self._settings.root_path + str(scope["path"]) + (f"?{rest}" if rest else "")
        answer = RedirectResponse("/" + target.lstrip("/\\"), HTTPStatus.SEE_OTHER, headers=_HEADERS)
        is_safe = scope.get("scheme") == "https" or headers.get("x-forwarded-proto") == "https"
        answer.set_cookie(COOKIE, token, httponly=True, samesite="strict", secure=is_safe)
        return answer


class _TooMuchError(Exception):
    """More came than is taken."""


class _Counted:
    """Passes a body on as far as it is not too long, whatever its header said."""

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self._bytes = 0

    async def __call__(self) -> Message:
        message = await self._receive()
        self._bytes += len(message.get("body", b""))
        if self._bytes > MOST_BODY:
            raise _TooMuchError
        return message


def _marked(send: Send) -> Send:
    async def marked(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            for name, value in _HEADERS.items():
                headers.setdefault(name, value)
        await send(message)

    return marked


def _refused(reason: str) -> Response:
    return PlainTextResponse(reason, HTTPStatus.FORBIDDEN, headers=_HEADERS)


def _too_large() -> Response:
    text = f"more than {MOST_BODY // 1_000_000} MB at once: put large files into the workspace folder instead"
    return PlainTextResponse(text, HTTPStatus.REQUEST_ENTITY_TOO_LARGE, headers={"connection": "close", **_HEADERS})


def _same(given: str, token: str) -> bool:
    return hmac.compare_digest(given.encode("utf-8", "replace"), token.encode())
