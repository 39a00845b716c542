"""The only reader of os.environ: every variable that Tunesmith obeys, with its type and default."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Mapping
from pathlib import Path

from tunesmith.core.errors import EnvironmentValueError

_SETTING = re.compile(r"(?:export\s+)?(?P<name>[A-Za-z_]\w*)\s*=(?P<value>.*)")
_QUOTED = re.compile(r"(?P<mark>['\"])(?P<text>.*?)(?P=mark)\s*(?:#.*)?$")
_TRUE = {"1", "true", "y", "yes", "on"}


def get(name: str, default: str | None = None) -> str | None:
    """The variable's text; empty counts as absent."""
    return os.environ.get(name) or default


def switch(name: str, default: bool = False) -> bool:
    """A yes/no variable: 1, true, y, yes, on in any case are yes."""
    value = get(name)
    return default if value is None else value.strip().lower() in _TRUE


def number(name: str, default: float, *, least: float = 0) -> float:
    """A number of at least `least`.

    Raises:
        EnvironmentValueError: the text is no number, or too small a one.
    """
    text = get(name)
    if text is None:
        return default
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not least <= value < math.inf:
        raise EnvironmentValueError(f"the environment variable {name} must be a number from {least:g} on, not {text!r}")
    return value


def whole_number(name: str, default: int, *, least: int = 0) -> int:
    """A whole number of at least `least`.

    Raises:
        EnvironmentValueError: the text is no whole number, or too small a one.
    """
    value = number(name, default, least=least)
    if value != int(value):
        raise EnvironmentValueError(f"the environment variable {name} must be a whole number, not {get(name)!r}")
    return int(value)


def words(name: str) -> tuple[str, ...]:
    """The parts of a list that is written with commas; blanks around them do not count."""
    return tuple(part.strip() for part in (get(name) or "").split(",") if part.strip())


def folders(name: str) -> tuple[str, ...]:
    """The parts of a list that is written as `PATH` is: with `:` between, `;` on Windows."""
    return tuple(part.strip() for part in (get(name) or "").split(os.pathsep) if part.strip())


def read_file(path: Path) -> dict[str, tuple[str, int]]:
    """The settings of a `.env` file, name -> (value, line); they do not become part of the environment.

    A line is `NAME=value`, maybe with `export` before it and quotes around the value; `#` begins a comment at the start
    of a line, or after a blank behind a value without quotes.

    Raises:
        EnvironmentValueError: a line is no setting, or the file is not UTF-8.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise EnvironmentValueError(f"{path}: not UTF-8 text (byte {error.start}); save it as UTF-8") from error
    found = {}
    for number, line in enumerate(lines, start=1):
        text = line.strip()
        if not text or text.startswith("#"):
            continue
        match = _SETTING.fullmatch(text)
        if not match:
            raise EnvironmentValueError(f"{path}:{number}: write NAME=value, one a line")
        found[match["name"]] = (_plain(match["value"].strip()), number)
    return found


def _plain(value: str) -> str:
    """The value without its quotes, or without the comment behind it."""
    quoted = _QUOTED.match(value)
    return quoted["text"] if quoted else re.split(r"\s#", value, maxsplit=1)[0].rstrip()


def set_default(name: str, value: str) -> None:
    """Sets a variable that other libraries read, unless the user did."""
    os.environ.setdefault(name, value)


def override(name: str, value: str) -> None:
    """Sets a variable that other libraries read, in a process that must not have it otherwise."""
    os.environ[name] = value


def exempt_from_proxy(*hosts: str) -> None:
    """Adds hosts to those that are reached without a proxy; what the user named stays."""
    for name in ("no_proxy", "NO_PROXY"):
        known = [part.strip() for part in os.environ.get(name, "").split(",") if part.strip()]
        os.environ[name] = ",".join(dict.fromkeys([*known, *hosts]))


def home() -> Path:
    """`TUNESMITH_HOME`: converted models and caches; default the user's cache folder."""
    chosen = get("TUNESMITH_HOME")
    if chosen:
        return Path(chosen).expanduser()
    base = get("XDG_CACHE_HOME")
    return (Path(base).expanduser() if base else Path.home() / ".cache") / "tunesmith"


def workspace() -> Path:
    """`TUNESMITH_WORKSPACE`: the folder of runs and their queue; default the current folder."""
    return Path(get("TUNESMITH_WORKSPACE") or ".").expanduser()


def is_offline() -> bool:
    """Whether `HF_HUB_OFFLINE` or `TRANSFORMERS_OFFLINE` forbids the network."""
    return switch("HF_HUB_OFFLINE") or switch("TRANSFORMERS_OFFLINE")


def allows_extra_args() -> bool:
    """`ALLOW_EXTRA_ARGS`: unknown configuration keys become warnings."""
    return switch("ALLOW_EXTRA_ARGS")


def rank() -> int:
    """This process's rank among all (`RANK`), 0 when alone."""
    return whole_number("RANK", 0)


def world_size() -> int:
    """Number of processes (`WORLD_SIZE`), 1 when alone."""
    return whole_number("WORLD_SIZE", 1, least=1)


def local_world_size() -> int:
    """Number of processes on this machine (`LOCAL_WORLD_SIZE`), 1 when alone."""
    return whole_number("LOCAL_WORLD_SIZE", 1, least=1)


def with_values(values: Mapping[str, str]) -> dict[str, str]:
    """This process's environment with some variables changed, for a process that it starts."""
    return {**os.environ, **values}


def expand(name: str) -> str | None:
    """The value behind `${oc.env:NAME}`; an empty string is a value here, None means unset."""
    return os.environ.get(name)
