"""`tunesmith data`: look at data, change its layout, and make data sets out of long text, without training."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from tunesmith.cli.help import wants_help
from tunesmith.cli.words import take_switch, take_value
from tunesmith.core.errors import DataError, Problem, ProblemsError, TunesmithError
from tunesmith.core.lazy import nearest

if TYPE_CHECKING:
    from tunesmith.data.checks.result import CheckResult

_MAKING = ("make", "dialogue", "split")
_LAYOUTS = ("alpaca", "sharegpt", "openai")


def main(words: Sequence[str]) -> None:
    """Shows rows, reads and reports every row, writes rows in another layout, or makes rows out of long text."""
    actions: dict[str, Callable[[list[str]], None]] = {
        "preview": _preview,
        "check": _check,
        "convert": _convert,
        "make": _make,
        "dialogue": _dialogue,
        "split": _split,
    }
    action, *rest = words or [""]
    if wants_help(f"data {action}" if action in _MAKING else "data", words):
        return
    if action not in actions:
        near = nearest(action, list(actions))
        hint = f"did you mean tunesmith data {near}?" if near else f"there are {', '.join(actions)}"
        raise TunesmithError(f"data does not know {action!r}: {hint}" if action else f"data does what? {hint}")
    actions[action](rest)


def _preview(words: list[str]) -> None:
    row = take_value(words, "--row")
    ids = take_switch(words, "--ids")
    if row is not None and not (row.isdecimal() and int(row)):
        raise TunesmithError(f"--row takes the number of a row, from 1 on, not {row!r}")
    from tunesmith.config.load import load_config

    config = load_config(words, "data")
    from tunesmith.recipes.preview import preview

    preview(config, int(row) if row else None, ids=ids)


def _check(words: list[str]) -> None:
    as_json = take_switch(words, "--json")
    try:
        result = _checked(words)
    except TunesmithError as error:
        if as_json:
            problems = error.problems if isinstance(error, ProblemsError) else [Problem(str(error))]
            found = [{"what": problem.what, "where": problem.where, "fix": problem.fix} for problem in problems]
            print(json.dumps({"schema": 1, "ok": False, "problems": found}, ensure_ascii=False))
        raise
    if as_json:
        print(json.dumps(result.as_json(), ensure_ascii=False))
    else:
        from tunesmith.data.checks.show import lines

        print("\n".join(lines(result)))
    if result.problems:
        raise DataError(result.problems)


def _checked(words: list[str]) -> CheckResult:
    png = take_value(words, "--png")
    from tunesmith.config.load import load_config

    config = load_config(words, "data")
    from tunesmith.recipes.data import check

    return check(config, png)


def _convert(words: list[str]) -> None:
    layout = take_value(words, "--to") or "openai"
    overwrite = take_switch(words, "--overwrite") or (take_value(words, "--overwrite") or "false").lower() == "true"
    if len(words) < 2 or any(word.startswith("-") for word in words[:2]):
        raise TunesmithError("write tunesmith data convert INPUT OUTPUT to=alpaca (or sharegpt, openai)")
    if layout not in _LAYOUTS:
        near = nearest(layout, _LAYOUTS)
        raise TunesmithError(f"to={layout}: {f'did you mean {near}? ' if near else ''}one of {', '.join(_LAYOUTS)}")
    from tunesmith.config.build import Checks
    from tunesmith.config.load import load_config

    given, output, *rest = words
    config = load_config([*rest, f"dataset={given}"], "data", Checks(rules=False))
    from tunesmith.recipes.convert import convert_file

    print(convert_file(config, output, layout, overwrite=overwrite))


def _make(words: list[str]) -> None:
    from tunesmith.config.load import load_config

    config = load_config(words, "data make")
    from tunesmith.recipes.make import make

    print(make(config))


def _dialogue(words: list[str]) -> None:
    from tunesmith.config.load import load_config

    config = load_config(words, "data dialogue")
    from tunesmith.recipes.dialogue import dialogue

    print(dialogue(config))


def _split(words: list[str]) -> None:
    from tunesmith.config.load import load_config

    config = load_config(words, "data split")
    from tunesmith.recipes.split import split

    print(split(config))
