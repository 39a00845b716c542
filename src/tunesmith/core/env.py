"""The only reader of os.environ: every variable that Tunesmith obeys, with its type and default."""

from __future__ import annotations

import os
from pathlib import Path

_TRUE = {"1", "true", "y", "yes", "on"}


def get(name: str, default: str | None = None) -> str | None:
    """The variable's text; empty counts as absent."""
    return os.environ.get(name) or default


def switch(name: str, default: bool = False) -> bool:
    """A yes/no variable: 1, true, y, yes, on in any case are yes."""
    value = get(name)
    return default if value is None else value.strip().lower() in _TRUE


def set_default(name: str, value: str) -> None:
    """Sets a variable that other libraries read, unless the user did."""
    os.environ.setdefault(name, value)


def home() -> Path:
    """`TUNESMITH_HOME`: converted models and caches; default the user's cache folder."""
    chosen = get("TUNESMITH_HOME")
    if chosen:
        return Path(chosen).expanduser()
    base = get("XDG_CACHE_HOME")
    return (Path(base).expanduser() if base else Path.home() / ".cache") / "tunesmith"


def is_offline() -> bool:
    """Whether `HF_HUB_OFFLINE` or `TRANSFORMERS_OFFLINE` forbids the network."""
    return switch("HF_HUB_OFFLINE") or switch("TRANSFORMERS_OFFLINE")


def allows_extra_args() -> bool:
    """`ALLOW_EXTRA_ARGS`: unknown configuration keys become warnings."""
    return switch("ALLOW_EXTRA_ARGS")


def rank() -> int:
    """This process's rank among all (`RANK`), 0 when alone."""
    return int(get("RANK", "0") or 0)


def world_size() -> int:
    """Number of processes (`WORLD_SIZE`), 1 when alone."""
    return int(get("WORLD_SIZE", "1") or 1)


def expand(name: str) -> str | None:
    """The value behind `${oc.env:NAME}`; an empty string is a value here, None means unset."""
    return os.environ.get(name)
