"""Adapters by name: loaded, asked for, replaced, dropped; and folders that nobody may reach."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from tests.serving.conftest import MODEL, Stage, on_stage, settings

from tunesmith.core.errors import ModelError
from tunesmith.serving.errors import ApiError
from tunesmith.serving.names import ModelNames


@pytest.fixture
def stage(adapter_dir: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Stage]:
    monkeypatch.chdir(adapter_dir.parent)
    with on_stage(settings=settings(adapter_dir=Path("saves"), model_name="gpt-mine")) as running:
        yield running


def names(stage: Stage) -> list[str]:
    return [model.id for model in stage.client.models.list().data]


def drop(stage: Stage, name: str) -> httpx.Response:
    return httpx.delete(f"{stage.url}/v1/adapters/{name}")


def test_loaded_asked_for_replaced_and_dropped(stage: Stage, adapter_dir: Path) -> None:
    response = stage.post("/v1/adapters", name="mine", path="saves/one")
    assert response.status_code == 201
    assert response.json()["id"] == "mine"
    assert response.json()["parent"] == MODEL
    assert names(stage) == [MODEL, "gpt-mine", "mine"]
    stage.ask(model="mine")
    assert stage.seen.adapter == "mine"
    stage.ask()
    assert stage.seen.adapter is None
    response = stage.post("/v1/adapters", name="mine", path=str(adapter_dir / "two"))
    assert response.status_code == 200
    assert stage.engine._adapters["mine"] == adapter_dir / "two"
    assert [entry["id"] for entry in httpx.get(f"{stage.url}/v1/adapters").json()["data"]] == ["mine"]
    assert drop(stage, "mine").json() == {"id": "mine", "object": "model", "deleted": True}
    assert stage.engine.adapter_names == ()
    with pytest.raises(openai.NotFoundError):
        stage.ask(model="mine")


def test_a_path_within_the_folder_may_be_short(stage: Stage, adapter_dir: Path) -> None:
    assert stage.post("/v1/adapters", name="a", path="one").status_code == 201
    assert stage.engine._adapters["a"] == adapter_dir / "one"


@pytest.mark.parametrize(
    "path",
    ["/etc", "../..", "saves/../..", "saves", "saves/none", "~/x", "saves/one\0", "x" * 4000, "saves/link", "loop"],
)
def test_folders_outside_are_never_opened(stage: Stage, adapter_dir: Path, path: str) -> None:
    outside = adapter_dir.parent / "outside"
    outside.mkdir()
    (outside / "adapter_config.json").write_text("{}")
    (adapter_dir / "link").symlink_to(outside)
    (adapter_dir / "loop").symlink_to(adapter_dir / "loop")
    response = stage.post("/v1/adapters", name="a", path=path)
    assert response.status_code == 400
    assert "API_ADAPTER_DIR" in response.json()["error"]["message"]
    assert stage.engine.adapter_names == ()


@pytest.mark.parametrize("name", ["", "../x", "a/b", "a b", "-a", "x" * 65, "ä", MODEL])
def test_names_that_cannot_be(stage: Stage, name: str) -> None:
    assert stage.post("/v1/adapters", name=name, path="saves/one").status_code == 400


def test_names_of_the_configuration_stay(stage: Stage) -> None:
    assert stage.post("/v1/adapters", name="gpt-mine", path="saves/one").status_code == 400
    assert drop(stage, "gpt-mine").status_code == 400
    assert drop(stage, MODEL).status_code == 400
    assert drop(stage, "nobody").status_code == 404


def test_an_adapter_that_does_not_fit(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(name: str, path: Path) -> None:
        raise ModelError("the adapter was trained on another base")

    monkeypatch.setattr(stage.engine, "add_adapter", refuse)
    response = stage.post("/v1/adapters", name="a", path="saves/one")
    assert response.status_code == 400
    assert "another base" in response.json()["error"]["message"]
    assert "a" not in names(stage)


def test_the_alias_answers_as_the_model(stage: Stage) -> None:
    answer = stage.ask(model="gpt-mine")
    assert answer.model == "gpt-mine"
    assert stage.seen.adapter is None


def test_the_configured_adapter_answers_under_the_models_name() -> None:
    """As in LLaMA-Factory: the tutorials ask for the base's name and mean the fine-tuned model."""
    known = ModelNames("base-7b", default="saves/x", adapters={"saves/x": "saves/x"}, alias="mine")
    assert [known.resolve(name) for name in ("base-7b", "saves/x", "mine")] == ["saves/x"] * 3
    assert known.resolve("base") is None
    assert known.shown("saves/x")["parent"] == "base-7b"
    for name in ("base-7b", "saves/x", "base", "mine"):
        with pytest.raises(ApiError):
            known.droppable(name)


def test_adapters_on_the_model_for_good() -> None:
    known = ModelNames("base-7b", adapters={"b": None})
    assert known.resolve("base-7b") is None
    assert known.resolve("b") is None
    with pytest.raises(ApiError, match="not served"):
        known.resolve("a")
    listed: list[dict[str, Any]] = known.listed()["data"]
    assert [entry["id"] for entry in listed] == ["base-7b", "b"]
