"""Tables of 'name -> module:object' strings, resolved on use, so that no import pays for what it does not run."""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Iterable, Mapping
from typing import Any


def load_object(path: str) -> Any:
    """Imports `package.module:attribute` and returns the attribute."""
    module_name, _, attribute = path.partition(":")
    return getattr(importlib.import_module(module_name), attribute)


def nearest(name: str, known: Iterable[str], cutoff: float = 0.6) -> str | None:
    """The known name closest to `name`, or None when nothing is near."""
    folded = {candidate.lower().replace("-", "_"): candidate for candidate in known}
    hits = difflib.get_close_matches(name.lower().replace("-", "_"), folded, n=1, cutoff=cutoff)
    return folded[hits[0]] if hits else None


def lookup(table: Mapping[str, str], name: str) -> Any:
    """Resolves `name` through `table`.

    Raises:
        KeyError: the name is not in the table.
    """
    return load_object(table[name])
