"""What stands before every page, as plain ASGI: who may come in, from which page, with how much."""

from __future__ import annotations

import asyncio
import hmac
from http import HTTPStatus
from urllib.parse import parse_qs, urlencode, urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import cookie_parser
from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from tunesmith.core.net import is_local_name, name_of
from tunesmith.studio.login import MOST_FORM, SECONDS, Login, login_page, read_form
from tunesmith.studio.settings import PageSettings

COOKIE = "tunesmith_page"
MOST_BODY = 64_000_000
"""Bytes of one request; uploads come in one."""
_READING = frozenset({"GET", "HEAD", "OPTIONS"})
_BY_GRADIO = "/gradio_api/startup-events"
"""Asked by Gradio itself when it starts; it says yes and nothing else."""
_LOGIN, _LOGOUT = "/login", "/logout"
_WRONG_SECONDS = 1.0
_HEADERS = {
    "x-content-type-options": "nosniff",
    "x-frame-options": "SAMEORIGIN",
    "referrer-policy": "same-origin",
}


class PageGate:
    """Checks host, origin, token, login and size.

    Without a password the page answers to this machine's own names only, so that a web page elsewhere that gives its
    name this machine's address gets nothing (DNS rebinding). What changes anything must come from the page itself.
    Whether the page is there (HEAD) is said without making it, which takes seconds on a busy machine: Gradio asks when
    it starts, waits for three, and would give up.

    Args:
        app: what stands behind.
        settings: of the page server.
        login: who may come in, where a password is asked for.
    """

    def __init__(self, app: ASGIApp, settings: PageSettings, login: Login | None = None) -> None:
        if settings.auth and login is None:
            raise ValueError("a password is set and nobody would ask for it")
        self._app = app
        self._settings = settings
        self._login = login

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        answer = self._refusal(scope, headers) or self._entrance(scope, headers)
        if answer is None and self._login is not None:
            answer = await self._asked(self._login, scope, headers, receive)
        if answer is None and scope["type"] == "http" and scope["method"] == "HEAD" and scope["path"] == "/":
            answer = Response(media_type="text/html", headers=_HEADERS)
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
        answer.set_cookie(COOKIE, token, httponly=True, samesite="strict", secure=_is_safe(scope, headers))
        return answer

    async def _asked(self, login: Login, scope: Scope, headers: Headers, receive: Receive) -> Response | None:
        """With a password: lets in who has logged in, and asks others."""
        path = str(scope["path"]).rstrip("/")
        if scope["path"] == _BY_GRADIO:
            return None
        if scope["type"] == "http" and path == _LOGIN and scope["method"] == "POST":
            return await self._entered(login, scope, headers, receive)
        if path == _LOGOUT:
            answer = self._to_page()
            answer.delete_cookie(login.cookie)
            return answer
        if login.knows(cookie_parser(headers.get("cookie", "")).get(login.cookie, "")):
            return self._to_page() if path == _LOGIN else None
        if "text/html" not in headers.get("accept", ""):
            return PlainTextResponse(
                "this page asks for a name and a password", HTTPStatus.UNAUTHORIZED, headers=_HEADERS
            )
        return self._question()

    def _to_page(self) -> Response:
        return RedirectResponse(self._settings.root_path + "/", HTTPStatus.SEE_OTHER, headers=_HEADERS)

    def _question(self, *, was_wrong: bool = False) -> Response:
        text = login_page(self._settings.root_path + _LOGIN, was_wrong=was_wrong)
        return HTMLResponse(text, HTTPStatus.UNAUTHORIZED, headers={"cache-control": "no-store", **_HEADERS})

    async def _entered(self, login: Login, scope: Scope, headers: Headers, receive: Receive) -> Response:
        """What somebody gave as name and password."""
        name, password = read_form(await _body(receive))
        is_person = "text/html" in headers.get("accept", "")
        if not login.is_right(name, password):
            await asyncio.sleep(_WRONG_SECONDS)  # guessing takes its time
            if is_person:
                return self._question(was_wrong=True)
            return PlainTextResponse("this name and password do not belong together", 400, headers=_HEADERS)
        answer: Response = JSONResponse({"success": True}, headers=_HEADERS)  # as scripts know it of Gradio
        if is_person:
            answer = self._to_page()
        safe = _is_safe(scope, headers)
        answer.set_cookie(login.cookie, login.value_for(name), SECONDS, httponly=True, samesite="lax", secure=safe)
        return answer


async def _body(receive: Receive) -> bytes:
    """A short body; the rest of a long one is left, and what it holds is no password then."""
    found = b""
    while len(found) <= MOST_FORM:
        message = await receive()
        found += message.get("body", b"")
        if not message.get("more_body"):
            break
    return found


def _is_safe(scope: Scope, headers: Headers) -> bool:
    """Whether the browser speaks https, with us or with a proxy in front."""
    return scope.get("scheme") == "https" or headers.get("x-forwarded-proto") == "https"


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
