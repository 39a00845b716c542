"""The login before a page: cookies that are forged, old, of another page or of a changed password open nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from starlette.testclient import TestClient

from tunesmith.studio import gate
from tunesmith.studio.gate import PageGate
from tunesmith.studio.login import SECONDS, Login, server_secret
from tunesmith.studio.settings import PageSettings

USERS = {"ann": "secret-1", "b.ö b": "secret-2"}
SECRET = b"s" * 32
PERSON = {"accept": "text/html"}


def client(login: Login, **settings: Any) -> TestClient:
    route = Route("/{rest:path}", lambda request: PlainTextResponse("the page"), methods=["GET", "POST"])
    middle = Middleware(PageGate, settings=PageSettings(auth=tuple(USERS.items()), **settings), login=login)
    return TestClient(Starlette(routes=[route], middleware=[middle]), follow_redirects=False)


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gate, "_WRONG_SECONDS", 0.0)


def enter(browser: TestClient, name: str, password: str, **headers: str) -> Any:
    return browser.post("/login", data={"username": name, "password": password}, headers=headers)


def test_nothing_is_shown_before_the_password() -> None:
    browser = client(Login(USERS, SECRET, "ws"))
    asked = browser.get("/", headers=PERSON)
    assert asked.status_code == 401
    assert 'type="password"' in asked.text
    assert "密码" in asked.text
    for path in ("/gradio_api/app_id", "/config", "/assets/x.js", "/gradio_api/file=x", "/login/../config"):
        assert browser.get(path).status_code == 401
        assert "the page" not in browser.get(path).text
    assert browser.post("/gradio_api/queue/join").status_code == 401


@pytest.mark.parametrize("name", USERS)
def test_the_right_password_opens_the_page_until_it_changes(name: str) -> None:
    browser = client(Login(USERS, SECRET, "ws"))
    answer = enter(browser, name, USERS[name], **PERSON)
    assert (answer.status_code, answer.headers["location"]) == (303, "/")
    kept = answer.headers["set-cookie"]
    assert "HttpOnly" in kept
    assert "samesite=lax" in kept.lower()
    assert browser.get("/").text == "the page"
    assert browser.get("/login", headers=PERSON).headers["location"] == "/", "a reload after a wrong password"
    cookies = dict(browser.cookies)
    again = client(Login(USERS, SECRET, "ws"))  # the server was started anew
    again.cookies.update(cookies)
    assert again.get("/").text == "the page"
    changed = client(Login({**USERS, name: "another"}, SECRET, "ws"))
    changed.cookies.update(cookies)
    assert changed.get("/").status_code == 401
    browser.get("/logout", headers=PERSON)
    assert browser.get("/").status_code == 401


@pytest.mark.parametrize(
    ("name", "password"),
    [("ann", "secret-2"), ("ann", ""), ("", ""), ("eve", "secret-1"), ("ann", "secret-1 "), ("ann", "x" * 20_000)],
)
def test_a_wrong_password_opens_nothing(name: str, password: str) -> None:
    browser = client(Login(USERS, SECRET, "ws"))
    answer = enter(browser, name, password, **PERSON)
    assert answer.status_code == 401
    assert "do not belong together" in answer.text
    assert "set-cookie" not in answer.headers
    assert enter(browser, name, password).status_code == 400
    assert browser.get("/").status_code == 401


def test_a_login_of_another_page_is_refused() -> None:
    browser = client(Login(USERS, SECRET, "ws"))
    headers = {"origin": "http://evil.example", **PERSON}
    assert enter(browser, "ann", "secret-1", **headers).status_code == 403


def test_cookies_that_are_not_ours() -> None:
    login = Login(USERS, SECRET, "ws")
    good = login.value_for("ann", now=1000.0)
    assert login.knows(good, now=1000.0)
    ends, name, signature = good.split(".")
    assert not login.knows(good, now=1000.0 + SECONDS + 1)
    assert not login.knows(f"{int(ends) + 9}.{name}.{signature}", now=1000.0)
    assert not login.knows(f"{ends}.b.{signature}", now=1000.0)
    assert not login.knows(f"{ends}.{name}.", now=1000.0)
    assert not Login(USERS, b"t" * 32, "ws").knows(good, now=1000.0)
    assert not Login(USERS, SECRET, "elsewhere").knows(good, now=1000.0)
    assert not Login({"ann": "new"}, SECRET, "ws").knows(good, now=1000.0)
    assert not Login({"eve": "secret-1"}, SECRET, "ws").knows(good, now=1000.0)
    for value in ("", ".", "..", "1", "x.ann.y", f"-1.ann.{signature}", f"²{ends}.ann.{signature}", "9" * 20_000):
        assert not login.knows(value, now=1000.0), value
    assert login.cookie != Login(USERS, SECRET, "elsewhere").cookie


def test_the_secret_is_made_once_and_for_this_user_alone(tmp_path: Path) -> None:
    file = tmp_path / "home" / "page.key"
    made = server_secret(file)
    assert file.stat().st_mode & 0o777 == 0o600
    assert server_secret(file) == made
    assert [path.name for path in file.parent.iterdir()] == ["page.key"]
    file.chmod(0o640)
    other = server_secret(file)
    assert other != made, "others could have read it"
    file.write_bytes(b"torn")
    assert len(server_secret(file)) == 32


def test_a_gate_without_a_login_is_not_built() -> None:
    with pytest.raises(ValueError, match="password"):
        PageGate(None, PageSettings(auth=(("ann", "secret-1"),)))  # type: ignore[arg-type]


def test_behind_a_proxy_the_form_goes_where_the_page_is() -> None:
    browser = client(Login(USERS, SECRET, "ws"), root_path="/studio")
    assert 'action="/studio/login"' in browser.get("/", headers=PERSON).text
    assert enter(browser, "ann", "secret-1", **PERSON).headers["location"] == "/studio/"


def test_whether_a_page_is_there_is_said_without_making_it() -> None:
    """Gradio waits three seconds for this answer when it starts; on a busy machine the page takes longer."""

    async def making(*_: Any) -> None:
        raise AssertionError("the page was made")

    asked = TestClient(PageGate(making, PageSettings()), base_url="http://localhost")
    assert asked.head("/").status_code == 200
    with pytest.raises(AssertionError, match="was made"):
        asked.get("/")
    assert TestClient(PageGate(making, PageSettings()), base_url="http://elsewhere.org").head("/").status_code == 403
    assert client(Login(USERS, SECRET, "page")).head("/").status_code == 401
