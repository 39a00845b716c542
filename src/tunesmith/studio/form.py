"""What a form holds: key -> text of its field, for the keys that were set. To YAML, from YAML, to a RunConfig."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from tunesmith.config import legacy
from tunesmith.config.build import Checks
from tunesmith.config.coerce import MismatchError, coerce
from tunesmith.config.dump import quoted, written
from tunesmith.config.entries import Entry, Word, is_null
from tunesmith.config.legacy import NAMES
from tunesmith.config.load import load_keys
from tunesmith.config.read import parse_flow, read_text
from tunesmith.config.schema import ALIASES, KEYS, Key, RunConfig
from tunesmith.config.suggest import did_you_mean, near_keys
from tunesmith.core.errors import ConfigError, Problem
from tunesmith.studio.guard import faults_of, path_problems, reads_environment
from tunesmith.studio.workspace import Workspace

Said = dict[str, str]
"""Key -> text of its field; a key that is not there was not set."""
LINES = frozenset({"default_system", "row_system"})
"""Keys whose fields hold several lines."""
_REFERENCE = "${"


def value_of(known: Key, text: str) -> Any:
    """What a field says; text in double quotes is taken as it stands between them, `${...}` is left as it is.

    Raises:
        MismatchError: it does not fit the key.
    """
    if _REFERENCE not in text:
        return coerce(known, _raw(text))
    if not text.startswith(("[", "{")):
        return text
    try:
        return _plain(parse_flow(text))
    except ValueError as error:
        raise MismatchError(f"{known.name}: {error}") from None


def text_of(known: Key, value: Any) -> str:
    """What a field shows for a value: plain where that is read back as the same, else quoted."""
    for text in _spellings(known, value):
        try:
            same = value_of(known, text)
        except MismatchError:
            continue
        if same == value and type(same) is type(value):
            return text
    raise AssertionError(f"{known.name}: no field can show {value!r}")


def _spellings(known: Key, value: Any) -> Iterator[str]:
    if value is None:
        yield "null"
    elif isinstance(value, bool):
        yield str(value).lower()
    elif isinstance(value, int | float):
        yield repr(value)
    elif isinstance(value, str):
        if _fits(known, value):
            yield value
        yield quoted(value)
    else:
        if isinstance(value, tuple) and value and all(item.isprintable() for item in map(str, value)):
            yield ", ".join(map(str, value))
        yield written(value)


def _fits(known: Key, text: str) -> bool:
    plain = text.replace("\n", "") if known.name in LINES else text
    return bool(text) and plain.isprintable() and text == text.strip()


def _raw(text: str) -> Any:
    """A field's text as the YAML reader would give it."""
    if len(text) > 1 and text[0] == text[-1] == '"':
        try:
            inner = parse_flow(text)
        except ValueError:
            return Word(text)
        if isinstance(inner, str) and not isinstance(inner, Word):
            return inner
    return Word(text)


def read_yaml(text: str, name: str = "config.yaml") -> Said:
    """A configuration file as a form holds it.

    Args:
        text: YAML or JSON.
        name: what places are named after.

    Raises:
        ConfigError: it is no configuration; a key or value is wrong; a secret is in it.
    """
    entries, problems = read_text(text, name)
    renamed, _ = legacy.rename([Entry(ALIASES.get(one.key, one.key), one.value, one.where) for one in entries])
    said: Said = {}
    for entry in renamed:
        known = KEYS.get(entry.key)
        if known is None:
            fix = did_you_mean(near_keys(entry.key, NAMES))
            problems.append(Problem(f"unknown key {entry.key}", entry.where, fix))
        elif known.secret:
            problems.append(_secret(entry.key, entry.where))
        elif not (is_null(entry.value) and not known.nullable):
            try:
                said[entry.key] = _text_of_raw(known, entry.value)
            except MismatchError as error:
                problems.append(Problem(error.what, entry.where, error.fix))
    if problems:
        raise ConfigError(problems)
    return said


def _text_of_raw(known: Key, raw: Any) -> str:
    if _REFERENCE in str(raw):
        return str(raw) if isinstance(raw, str) else written(_plain(raw))
    return text_of(known, coerce(known, raw))


def _plain(raw: Any) -> Any:
    if isinstance(raw, dict):
        return {name: _plain(value) for name, value in raw.items()}
    if isinstance(raw, list):
        return [_plain(value) for value in raw]
    return str(raw) if isinstance(raw, Word) else raw


def to_yaml(said: Mapping[str, str]) -> str:
    """The form as a YAML file, keys in the order of the schema; secrets are left out.

    Raises:
        ConfigError: a value does not fit its key.
    """
    values, problems = _values(said)
    if problems:
        raise ConfigError(problems)
    return "".join(f"{name}: {written(values[name])}\n" for name in KEYS if name in values)


def _values(said: Mapping[str, str]) -> tuple[dict[str, Any], list[Problem]]:
    """The typed values, and what is wrong with the others."""
    values: dict[str, Any] = {}
    problems: list[Problem] = []
    for name, text in said.items():
        known = KEYS.get(name)
        if known is None:
            problems.append(Problem(f"unknown key {name[:80]}", fix=did_you_mean(near_keys(name[:80], NAMES))))
        elif known.secret:
            problems.append(_secret(name))
        elif reads_environment(text):
            fix = "a page's form would show and write what it holds: set the key itself, or train from the command line"
            problems.append(Problem(f"{name}: the page reads no environment variables", fix=fix))
        else:
            try:
                values[name] = value_of(known, text)
            except MismatchError as error:
                problems.append(Problem(error.what, fix=error.fix))
    return values, problems


def _secret(name: str, where: str = "") -> Problem:
    fix = "set it in the environment of tunesmith webui (HF_TOKEN for the hub) and leave the key out"
    return Problem(f"{name} is a secret, and the page writes what it holds into files", where, fix)


def config_of(
    said: Mapping[str, str],
    command: str,
    workspace: Workspace,
    *,
    keys: Mapping[str, Any] | None = None,
    checks: Checks | None = None,
) -> RunConfig:
    """The configuration that a form says, checked as the command line would; the environment is not read.

    Args:
        said: of the form.
        command: what it is for.
        workspace: which no path may leave.
        keys: what controls around the form say; the form counts before them.
        checks: beyond single values; default: all.

    Raises:
        ConfigError: with every problem found.
    """
    values, problems = _values(said)
    given = {**(keys or {}), **values}
    problems += faults_of(given, workspace)
    if problems:
        raise ConfigError(problems)
    config = load_keys(given, command, replace(checks or Checks(), environment=False))
    resolved = path_problems({name: getattr(config, name) for name in config.explicit if name in given}, workspace)
    if resolved:
        raise ConfigError(resolved)
    return config


def tab_config(
    workspace: Workspace,
    command: str,
    keys: Mapping[str, Any],
    said: Mapping[str, str] | None = None,
) -> RunConfig:
    """The configuration that a tab says: its controls, and the form under Advanced, which counts before them.

    Args:
        workspace: which no path may leave.
        command: behind the tab; what it does not use is left out.
        keys: of the controls.
        said: under Advanced.

    Raises:
        ConfigError: with every problem found.
    """
    used, more = (
        {name: value for name, value in given.items() if name not in KEYS or command in KEYS[name].commands}
        for given in (keys, said or {})
    )
    return config_of(more, command, workspace, keys=used)
