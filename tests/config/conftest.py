"""What the tests of the configuration share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tunesmith.config.load import load_config
from tunesmith.config.schema import RunConfig
from tunesmith.core.errors import ConfigError, Problem

BASE = {
    "model_name_or_path": "smollm2-135m",
    "do_train": "true",
    "dataset": "identity",
    "output_dir": "out",
}


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """Writes a file into an empty current folder and returns its name."""
    monkeypatch.chdir(tmp_path)

    def _write(text: str, name: str = "run.yaml") -> str:
        (tmp_path / name).write_text(text, encoding="utf-8")
        return name

    return _write


@pytest.fixture
def load(write: Callable[..., str]) -> Callable[..., RunConfig]:
    """Loads a minimal training configuration with lines added at its end, and words behind it."""

    def _load(lines: str = "", *words: str, command: str = "train") -> RunConfig:
        text = "".join(f"{name}: {value}\n" for name, value in BASE.items())
        return load_config([write(text + lines), *words], command)

    return _load


@pytest.fixture
def problems(load: Callable[..., RunConfig]) -> Callable[..., list[Problem]]:
    """The problems of such a configuration; [] where there are none."""

    def _problems(lines: str = "", *words: str, command: str = "train") -> list[Problem]:
        try:
            load(lines, *words, command=command)
        except ConfigError as error:
            return error.problems
        return []

    return _problems
