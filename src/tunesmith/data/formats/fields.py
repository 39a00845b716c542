"""Typed access to the columns of one row; a wrong one is a RowError with column, reason and fix."""

from __future__ import annotations

import json
import math
from typing import Any


class RowError(Exception):
    """One row cannot be used.

    Attributes:
        reason: what is wrong, without file and row.
        column: the column at fault, as the file names it; a path such as `messages[2].content` inside it.
        fix: what to do.
    """

    def __init__(self, reason: str, column: str = "", fix: str = "") -> None:
        super().__init__(reason)
        self.reason = reason
        self.column = column
        self.fix = fix


def kind_of(value: Any) -> str:
    """The value's type in the words of JSON."""
    names = {dict: "an object", list: "a list", str: "text", bool: "true/false", int: "a number", float: "a number"}
    return "null" if value is None else names.get(type(value), type(value).__name__)


def checked(value: Any, column: str) -> str:
    """`value` when it is usable text."""
    if value is None:
        raise RowError("null where text is expected", column, "write the text, or remove the row")
    if not isinstance(value, str):
        fix = "put it in quotes" if isinstance(value, int | float) else "write plain text"
        raise RowError(f"{kind_of(value)} where text is expected", column, fix)
    if "\x00" in value:
        raise RowError("the text holds a NUL character", column, "remove it")
    if value.isascii():
        return value
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise RowError(
            "the text holds half of a surrogate pair (a broken \\ud8.. escape)", column, "write the character"
        ) from error
    return value


def required_text(row: dict[str, Any], column: str) -> str:
    """The text in a column that must be there."""
    if column not in row:
        there = ", ".join(map(str, list(row)[:12])) or "none"
        raise RowError("the column is missing", column, f"the row has: {there}; name the right one under columns")
    return checked(row[column], column)


def optional_text(row: dict[str, Any], column: str | None) -> str:
    """The text in a column that may be absent or null; then empty."""
    if column is None or row.get(column) is None:
        return ""
    return checked(row[column], column)


def json_list(row: dict[str, Any], column: str) -> list[Any]:
    """The list in a column that must be there; a CSV cell may hold it as JSON text."""
    if column not in row:
        there = ", ".join(map(str, list(row)[:12])) or "none"
        raise RowError("the column is missing", column, f"the row has: {there}; name the right one under columns")
    value = row[column]
    if isinstance(value, str) and value.lstrip().startswith("["):
        value = parse_json(value, column)
    if not isinstance(value, list):
        raise RowError(f"{kind_of(value)} where a list is expected", column, "write a list of objects")
    return value


def parse_json(text: str, column: str) -> Any:
    """The value that a text spells."""
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise RowError(
            f"broken JSON: {error.msg} at character {error.pos + 1}", column, "mend the JSON text"
        ) from error
    except RecursionError as error:
        raise RowError("the JSON is nested too deep", column, "flatten it") from error


def row_weight(row: dict[str, Any], column: str | None) -> float:
    """The factor on the row's loss; 1 where the row or the data set names none."""
    if column is None or row.get(column) is None:
        return 1.0
    weight = _number(row[column])
    if weight is None or not is_weight(weight):
        fix = "write a number of 0 or more; if the column means something else, leave it out of columns"
        raise RowError(f"{row[column]!r} where the row's weight is expected", column, fix)
    return weight


def is_weight(value: Any) -> bool:
    """Whether a value can weigh a row: a finite number of 0 or more."""
    weight = _number(value)
    return weight is not None and math.isfinite(weight) and weight >= 0


def is_weightless(value: Any) -> bool:
    """Whether a weight says that the row counts nothing."""
    return _number(value) == 0


def _number(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        return float(value)
    except ValueError:
        return None
