"""Name and password before a page: asked by a page of our own, remembered by a signed cookie that outlives the server.

Gradio's own login keeps its sessions in memory and would ask again after every restart.
"""

from __future__ import annotations

import hashlib
import hmac
import html
import os
import secrets
import time
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import parse_qs, quote, unquote

from tunesmith.studio.web import text_of
from tunesmith.studio.words import LANGUAGES, say

SECONDS = 7 * 24 * 3600
"""A login is good for so long."""
MOST_FORM = 10_000
"""Bytes of a name and a password."""
_SECRET_BYTES = 32


def server_secret(file: Path) -> bytes:
    """What cookies are signed with: made once, readable for this user only.

    One that is torn, or that others could have read, is made anew; whoever was logged in is asked again.
    """
    try:
        found = file.read_bytes()
        if len(found) == _SECRET_BYTES and not file.stat().st_mode & 0o077:
            return found
        file.unlink()
    except FileNotFoundError:
        pass
    file.parent.mkdir(parents=True, exist_ok=True)
    made = secrets.token_bytes(_SECRET_BYTES)
    temporary = file.with_name(f".{file.name}.{secrets.token_hex(8)}")
    with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as handle:
        handle.write(made)
    try:
        os.link(temporary, file)  # unlike a rename it leaves the one that another server made meanwhile
    except FileExistsError:
        made = file.read_bytes()
    finally:
        temporary.unlink()
    return made


class Login:
    """Who may come in, and cookies that say who has.

    Args:
        users: name -> password.
        secret: of `server_secret`.
        page: what the cookie is good for, such as the workspace; another page's is not.
    """

    def __init__(self, users: Mapping[str, str], secret: bytes, page: str) -> None:
        self._users = dict(users)
        self._secret = secret
        self._page = page
        # Browsers send a cookie to every port of a machine: two pages must not overwrite each other's.
        self.cookie = f"tunesmith_login_{hashlib.sha256(page.encode()).hexdigest()[:12]}"

    def is_right(self, name: str, password: str) -> bool:
        """Whether this is a user's password; takes the same time for names that are none."""
        wanted = self._users.get(name, secrets.token_hex(16))
        return hmac.compare_digest(password.encode("utf-8", "replace"), wanted.encode()) and name in self._users

    def value_for(self, name: str, now: float | None = None) -> str:
        """The cookie of a user who has logged in."""
        ends = int((time.time() if now is None else now) + SECONDS)
        return f"{ends}.{quote(name, safe='').replace('.', '%2E')}.{self._signature(name, ends)}"

    def knows(self, value: str, now: float | None = None) -> bool:
        """Whether a cookie is ours, still good, and its user's password is the same."""
        ends, _, rest = value.partition(".")
        name, _, signature = rest.partition(".")
        name = unquote(name)
        if not (ends.isdecimal() and ends.isascii() and name in self._users and len(ends) < MOST_FORM):
            return False
        is_ours = hmac.compare_digest(signature.encode("utf-8", "replace"), self._signature(name, int(ends)).encode())
        return is_ours and int(ends) > (time.time() if now is None else now)

    def _signature(self, name: str, ends: int) -> str:
        said = "\0".join((self._page, name, self._users[name], str(ends)))
        return hmac.new(self._secret, said.encode(), hashlib.sha256).hexdigest()


def read_form(body: bytes) -> tuple[str, str]:
    """Name and password out of the body of a login."""
    said = parse_qs(body.decode("utf-8", "replace"), keep_blank_values=True)
    return said.get("username", [""])[0].strip(), said.get("password", [""])[0]


def login_page(target: str, *, was_wrong: bool = False) -> str:
    """The page that asks, in every language at once.

    Args:
        target: where the form is sent.
        was_wrong: what was given before is no user's.
    """
    words = {name: " · ".join(say(f"login.{name}", language) for language in LANGUAGES) for name in _WORDS}
    page = text_of("login.html").replace("{target}", html.escape(target, quote=True))
    page = page.replace("{hidden}", "" if was_wrong else "hidden")
    for name, text in words.items():
        page = page.replace(f"{{{name}}}", html.escape(text))
    return page


_WORDS = ("title", "name", "password", "enter", "wrong")
