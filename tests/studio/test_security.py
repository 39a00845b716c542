"""What must not work: other pages, wrong hosts, no token, paths that leave, code in fields, huge bodies, secrets."""

from __future__ import annotations

import http.client
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast
from urllib.parse import urlsplit

import pytest
from tests.studio.server import Server, studio

from tunesmith.cli.main import main
from tunesmith.core.errors import ConfigError, ServingError, TunesmithError
from tunesmith.recipes import queue
from tunesmith.studio import start
from tunesmith.studio.form import config_of, read_yaml, to_yaml
from tunesmith.studio.gate import COOKIE, MOST_BODY
from tunesmith.studio.making_view import making_config
from tunesmith.studio.runs_tab import _Builder
from tunesmith.studio.settings import PageSettings
from tunesmith.studio.views import comparison, run_view
from tunesmith.studio.workspace import Workspace

TOKEN = "a-token-of-good-length"
FORM = {"model_name_or_path": "smollm2-135m", "dataset": "identity", "template": "auto", "do_train": "true"}


@pytest.fixture(scope="module")
def outside(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("outside")
    (folder / "secret.txt").write_text("top secret")
    (folder / "secret.json").write_text('[{"instruction": "a", "output": "top secret"}]')
    (folder / "model").mkdir()
    return folder


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory, outside: Path) -> Path:
    folder = tmp_path_factory.mktemp("workspace")
    (folder / "data").mkdir()
    (folder / "link").symlink_to(outside)
    (folder / "inside.txt").write_text("of the workspace")
    info = {
        "inside": {"file_name": "rows.json"},
        "up": {"file_name": f"../../{outside.name}/secret.json"},
        "absolute": {"file_name": str(outside / "secret.json")},
    }
    (folder / "data" / "dataset_info.json").write_text(json.dumps(info))
    (folder / "data" / "rows.json").write_text('[{"instruction": "a", "output": "b"}]')
    return folder


@pytest.fixture
def workspace(root: Path, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    monkeypatch.chdir(root)
    monkeypatch.setattr(queue, "ensure_worker", lambda root: None)
    return Workspace.at(root)


@pytest.fixture(scope="module")
def url(root: Path) -> Iterator[str]:
    """The page without a password, on the loopback."""
    with studio(root) as server:
        yield server.url


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The page with a token."""
    with studio(tmp_path_factory.mktemp("guarded"), "--token", TOKEN) as server:
        yield server


@pytest.fixture(scope="module")
def locked(guarded: Server) -> str:
    return guarded.url


def ask(url: str, path: str, method: str = "GET", body: bytes | None = None, **headers: str) -> tuple[int, Any, str]:
    """Status, headers and text; the path goes out as it is written, dots and all."""
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port or 80, timeout=20)
    try:
        names = {name.replace("_", "-"): value for name, value in headers.items()}
        connection.request(method, path, body, names)
        answer = connection.getresponse()
        return answer.status, answer.headers, answer.read().decode("utf-8", "replace")
    finally:
        connection.close()


def join(url: str, function: int, data: list[Any], **headers: str) -> tuple[int, Any, str]:
    body = json.dumps({"data": data, "fn_index": function, "session_hash": "abc"}).encode()
    return ask(url, "/gradio_api/queue/join", "POST", body, Content_Type="application/json", **headers)


# ---- who may come in


def test_the_page_itself_comes_in(url: str) -> None:
    status, headers, text = ask(url, "/")
    assert status == 200
    assert "window.tunesmithKeys" in text
    assert headers["x-frame-options"] == "SAMEORIGIN"
    assert headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example", "localhost.evil.example", "10.1.2.3"])
def test_another_host_name_is_refused(url: str, host: str) -> None:
    status, _, text = ask(url, "/", Host=host)
    assert (status, "localhost only" in text) == (403, True)


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://127.0.0.1:1"},
        {"Sec_Fetch_Site": "cross-site"},
    ],
)
def test_another_page_cannot_press_buttons(url: str, headers: dict[str, str]) -> None:
    status, _, text = join(url, 0, [], **headers)
    assert (status, text) == (403, "this comes from another page")


def test_the_own_page_can(url: str) -> None:
    host = urlsplit(url).netloc
    status, _, text = join(url, 0, [None], Origin=f"http://{host}", Sec_Fetch_Site="same-origin")
    assert status != 403, text


def test_another_page_cannot_send_files(url: str) -> None:
    status, _, _ = ask(url, "/gradio_api/upload", "POST", b"x", Origin="https://evil.example")
    assert status == 403


@pytest.mark.parametrize(
    "path", ["/", "/config", "/gradio_api/info", "/gradio_api/queue/status", "/?token=wrong-token"]
)
def test_without_the_token_nothing_is_shown(locked: str, path: str) -> None:
    status, _, text = ask(locked, path)
    assert status == 401
    assert "tunesmithKeys" not in text


def test_without_the_token_no_button_works(locked: str) -> None:
    assert join(locked, 0, [])[0] == 401
    assert join(locked, 0, [], Cookie=f"{COOKIE}=wrong")[0] == 401


def test_the_token_opens_and_goes_out_of_the_address(locked: str) -> None:
    status, headers, _ = ask(locked, f"/?token={TOKEN}&view=1")
    assert (status, headers["location"]) == (303, "/?view=1")
    cookie = headers["set-cookie"]
    assert "HttpOnly" in cookie
    assert "samesite=strict" in cookie.lower()
    assert ask(locked, "/", Cookie=cookie.partition(";")[0])[0] == 200


def test_the_token_does_not_send_browsers_elsewhere(locked: str) -> None:
    _, headers, _ = ask(locked, f"//evil.example/?token={TOKEN}")
    assert headers["location"].startswith("/")
    assert not headers["location"].startswith("//")


@pytest.mark.parametrize("words", [["--host", "0.0.0.0"], ["--share"], ["--host", "::", "--token", "short"]])
def test_an_open_door_is_not_opened(words: list[str], capsys: Any, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setenv("TUNESMITH_WORKSPACE", str(tmp_path))
    assert main(["webui", *words]) == 2
    assert "oken" in capsys.readouterr().err or words == ["--share"]


def test_a_password_or_a_token_opens_it() -> None:
    PageSettings(host="0.0.0.0", token=TOKEN).check()
    PageSettings(host="0.0.0.0", auth=(("ann", "secret"),)).check()
    with pytest.raises(ServingError):
        PageSettings(host="0.0.0.0").check()


# ---- files


@pytest.mark.parametrize(
    "path",
    [
        "/gradio_api/file=/etc/passwd",
        "/gradio_api/file={outside}/secret.txt",
        "/gradio_api/file=../{outside_name}/secret.txt",
        "/gradio_api/file=link/secret.txt",
        "/gradio_api/file=inside.txt",
        "/gradio_api/file={root}/inside.txt",
        "/gradio_api/proxy=http://127.0.0.1:1/",
        "/static/../../../../etc/passwd",
        "/assets/%2e%2e/%2e%2e/%2e%2e/%2e%2e/etc/passwd",
    ],
)
def test_the_server_hands_out_no_files(url: str, path: str, root: Path, outside: Path) -> None:
    status, _, text = ask(url, path.format(outside=outside, outside_name=outside.name, root=root))
    assert status >= 400
    assert "top secret" not in text
    assert "root:" not in text
    assert "of the workspace" not in text


def test_a_huge_body_is_refused_before_it_is_read(url: str) -> None:
    status, _, text = ask(url, "/gradio_api/upload", "POST", None, Content_Length=str(MOST_BODY + 1))
    assert (status, "64 MB" in text) == (413, True)


def test_a_huge_body_that_does_not_say_so_is_cut(url: str) -> None:
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port or 80, timeout=60)
    kind = {"Content-Type": "multipart/form-data; boundary=x"}
    head = b'--x\r\nContent-Disposition: form-data; name="files"; filename="a.bin"\r\n\r\n'
    block = b"0" * 1_000_000

    def pieces() -> Iterator[bytes]:
        yield head
        for _ in range(MOST_BODY // len(block) + 2):
            yield block

    try:
        connection.request("POST", "/gradio_api/upload", pieces(), kind, encode_chunked=True)
        status = connection.getresponse().status
    except (BrokenPipeError, ConnectionResetError):
        status = 413  # the server hung up while the body was still coming
    connection.close()
    assert status in (400, 413)
    assert ask(url, "/")[0] == 200


LEAVING = {
    "output_dir": ["/tmp/x", "../x", "saves/../../x", "~/x", "link/x", "a\0b", "C:\\x"],
    "model_name_or_path": ["{outside}/model", "../{name}/model", "link/model", "file:///etc"],
    "dataset": ["{outside}/secret.json", "../{name}/secret.json", "up", "absolute", "inside, up"],
    "dataset_dir": ["{outside}", "/etc", "link"],
    "adapter_name_or_path": ["{outside}/model", "a,{outside}/model"],
    "deepspeed": ["/etc/passwd", '{{"a": "/etc/passwd"}}'],
    "metrics": ["{outside}/evil.py:f", "../evil.py:f", "link/evil.py:f"],
    "reward_funcs": ["{outside}/evil.py:f"],
    "logging_dir": ["/var/log"],
    "resume_from_checkpoint": ["{outside}/checkpoint-1"],
    "new_special_tokens_config": ["/etc/passwd"],
    "run_name": ["${{dataset_dir}}/../../x"],
}


@pytest.mark.parametrize(("key", "value"), [(key, value) for key, values in LEAVING.items() for value in values])
def test_no_field_leads_out_of_the_workspace(key: str, value: str, workspace: Workspace, outside: Path) -> None:
    text = value.format(outside=outside, name=f"../{outside.name}")
    with pytest.raises(TunesmithError):
        start.start({**FORM, "output_dir": "saves/x", key: text}, workspace)
    assert not (workspace.root / "saves").exists()


def test_what_is_inside_is_taken(workspace: Workspace) -> None:
    config = config_of({**FORM, "dataset": "inside", "output_dir": "saves/a"}, "train", workspace)
    assert config.output_dir == "saves/a"


def test_further_folders_can_be_read_but_not_written(workspace: Workspace, outside: Path) -> None:
    wider = Workspace(workspace.root, (outside,))
    assert wider.readable_path(outside / "secret.json")
    with pytest.raises(TunesmithError):
        wider.inside(outside / "x")
    with pytest.raises(ConfigError, match="metrics"):
        config_of({**FORM, "output_dir": "a", "metrics": f"{outside}/evil.py:f"}, "train", wider)


@pytest.mark.parametrize("name", ["/etc/passwd", "../x.yaml", "link/x.yaml", "x.sh", ".ssh/authorized_keys", ""])
def test_configurations_are_kept_inside_and_under_their_names(name: str, workspace: Workspace) -> None:
    with pytest.raises(TunesmithError):
        start.save(FORM, name, workspace)
    with pytest.raises(TunesmithError):
        start.load(name, workspace)


@pytest.mark.parametrize("name", ["/etc", "..", "link", "../x"])
def test_views_stay_inside(name: str, workspace: Workspace) -> None:
    with pytest.raises(TunesmithError):
        run_view(workspace, name)
    with pytest.raises(TunesmithError):
        comparison(workspace, [name, name])


# ---- fields


@pytest.mark.parametrize(
    "text", ["$(touch hacked)", "`touch hacked`", "; touch hacked", "a' && touch hacked #", "a\nb"]
)
def test_shell_characters_are_only_characters(text: str, workspace: Workspace, monkeypatch: Any) -> None:
    started: list[list[str]] = []
    monkeypatch.setattr(queue.subprocess, "Popen", lambda words, **facts: started.append(words))
    said = {**FORM, "dataset": "inside", "run_name": text, "output_dir": "saves/shell"}
    folder = start.start(said, workspace)
    assert read_yaml((folder / "queued.yaml").read_text())["run_name"].strip('"').replace("\\n", "\n") == text
    assert "run_name" in start.command_of(said)
    assert os.system(f": {start.command_of(said)}") == 0  # what users paste into a shell does nothing else, either
    assert not (workspace.root / "hacked").exists()
    assert all("hacked" not in word for words in started for word in words)
    shutil.rmtree(workspace.root / "saves")


@pytest.mark.parametrize("name", ["hf_hub_token", "hub_token", "api_key", "swanlab_api_key"])
def test_secrets_are_neither_taken_nor_written(name: str, workspace: Workspace, caplog: Any) -> None:
    said = {**FORM, "output_dir": "saves/secret", name: "hf_very_secret"}
    for refused in (
        lambda: start.start(said, workspace),
        lambda: to_yaml(said),
        lambda: read_yaml(f"{name}: hf_very_secret"),
    ):
        with pytest.raises(ConfigError) as found:
            refused()
        assert "very_secret" not in str(found.value)
    assert "very_secret" not in caplog.text
    assert not (workspace.root / "saves").exists()


@pytest.mark.parametrize(
    "text", ["${oc.env:HF_TOKEN}", "${env:HF_TOKEN}", "x${ oc.env:HF_TOKEN}", "[${oc.env:HF_TOKEN}]"]
)
def test_the_environment_is_not_shown(text: str, workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_very_secret")
    with pytest.raises(ConfigError, match="no environment variables") as found:
        start.start({**FORM, "output_dir": "saves/env", "run_name": text}, workspace)
    assert "very_secret" not in str(found.value)


@pytest.mark.parametrize(
    "said",
    [
        {"run_name": "${${project}:HF_TOKEN}", "project": "env"},
        {"run_name": "${project}{env:HF_TOKEN}", "project": "$"},
        {"run_name": "${${project}nv:HF_TOKEN,x}", "project": "oc.e"},
    ],
)
def test_the_environment_is_not_shown_by_pieces_either(
    said: dict[str, str], workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_very_secret")
    with pytest.raises(ConfigError) as found:
        start.start({**FORM, "dataset": "inside", "output_dir": "saves/env", **said}, workspace)
    assert "very_secret" not in str(found.value)
    assert "no environment variables" in str(found.value)


@pytest.mark.parametrize("text", ["${api_key}", "x ${ api_key }", "${base_url}"])
def test_no_key_shows_what_a_secret_holds(text: str, workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("API_KEY", "sk-very-secret")
    monkeypatch.chdir(workspace.root)
    (workspace.root / "long.txt").write_text("text")
    keys = {"input_file_path": "long.txt", "output_dir": "made", "base_url": "${api_key}", "generator_model": "m"}
    with pytest.raises(ConfigError, match="a secret") as found:
        making_config(workspace, "questions", {**keys, "dataset_name": text})
    assert "very-secret" not in str(found.value)


def test_every_value_of_a_sweep_is_looked_at(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[Any] = []
    monkeypatch.setattr(queue.subprocess, "Popen", lambda *words, **facts: started.append(words))
    start.start({**FORM, "dataset": "inside", "output_dir": "saves/base"}, workspace)
    tab = _Builder(cast("Any", SimpleNamespace(workspace=workspace)))
    for changes in ("cache_dir=kept,../outside", "seed=1,2\nrun_name=a,${env:HOME}"):
        with pytest.raises(ConfigError):
            tab._sweep(["saves/base"], "saves/sweep", changes, "en")
    assert not (workspace.root / "saves/sweep").exists()
    shutil.rmtree(workspace.root / "saves")


def test_the_token_is_not_in_the_log(guarded: Server) -> None:
    ask(guarded.url, f"/?token={TOKEN}")
    assert TOKEN not in guarded.log.read_text(encoding="utf-8")


def test_unknown_keys_and_strange_values_are_refused(workspace: Workspace) -> None:
    for said in ({"__class__": "x"}, {"output_dir": "x", "lora_rank": "8; rm -rf"}, {"a" * 5000: "1"}):
        with pytest.raises(ConfigError):
            start.start({**FORM, **said}, workspace)
