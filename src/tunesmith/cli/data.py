"""`tunesmith data preview | check`: look at the data of a configuration without training."""

from __future__ import annotations

from collections.abc import Sequence

from tunesmith.cli.help import wants_help
from tunesmith.core.errors import TunesmithError
from tunesmith.core.lazy import nearest

_ACTIONS = ("preview", "check")


def main(words: Sequence[str]) -> None:
    """Shows rows as the model would see them, or reads every row and reports the bad ones."""
    if wants_help("data", words):
        return
    action, *rest = words or [""]
    if action not in _ACTIONS:
        near = nearest(action, _ACTIONS)
        hint = f"did you mean tunesmith data {near}?" if near else "write tunesmith data preview CONFIG, or data check"
        raise TunesmithError(f"data does not know {action!r}: {hint}" if action else f"data does what? {hint}")
    from tunesmith.config.load import load_config

    config = load_config(rest, "data")
    from tunesmith.recipes.data import check, preview

    if action == "preview":
        preview(config)
    else:
        check(config)
