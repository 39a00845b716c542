"""What was said before anybody knows what it means: key, raw value, place."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

NULL_WORDS = frozenset({"", "~", "null", "Null", "NULL", "None"})


class Word(str):
    """Text without quotes, of a file or a flag: only its key says whether `8` or `no` is text, number or boolean."""

    __slots__ = ()


@dataclass(frozen=True, slots=True)
class Entry:
    """One setting as it was said.

    Attributes:
        key: the name as written.
        value: None, `Word`, `str` (was quoted), a Python scalar, or lists and dicts of these.
        where: `file:line`, `--flag` or `key=value`; empty for Python callers.
    """

    key: str
    value: Any
    where: str = ""


def is_null(value: Any) -> bool:
    """Whether a raw value says nothing: null, or nothing behind the colon."""
    return value is None or (isinstance(value, Word) and value in NULL_WORDS)
