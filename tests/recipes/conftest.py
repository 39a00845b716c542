"""Configurations of small files for the `data` command, with a tokenizer made here."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from tunesmith.config.schema import RunConfig
from tunesmith.data.template import load_template
from tunesmith.models import tokenizer as loading


@pytest.fixture
def configure(tmp_path, monkeypatch, tiny_tokenizer) -> Callable[..., RunConfig]:
    """Writes rows into a file (its name by `name`) and gives the configuration that reads it."""
    monkeypatch.setenv("TUNESMITH_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(loading, "load_tokenizer", lambda config: tiny_tokenizer)
    monkeypatch.setattr(loading, "load_template_for", lambda config, tokenizer: load_template("chatml"))

    def make(rows: list[Any], name: str = "rows.jsonl", **keys: Any) -> RunConfig:
        path = tmp_path / name
        path.write_text("\n".join(row if isinstance(row, str) else json.dumps(row) for row in rows))
        settings = {"model_name_or_path": "m", "dataset": str(path), **keys}
        return RunConfig.from_dict(settings, command="data")

    return make
