"""A raw value to the type of its key, with choices and range. Knows one key at a time; rules.py knows several."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from tunesmith.config.entries import Word, is_null
from tunesmith.config.read import parse_flow, plain_value
from tunesmith.config.schema.key import Key
from tunesmith.core.lazy import nearest

_YES = frozenset({"true", "yes", "on", "y", "t", "1"})
_NO = frozenset({"false", "no", "off", "n", "f", "0"})
BOOLEAN_WORDS = _YES | _NO
_BOUNDS: dict[str, tuple[str, Callable[[float, float], bool]]] = {
    "ge": ("at least", lambda value, bound: value >= bound),
    "gt": ("more than", lambda value, bound: value > bound),
    "le": ("at most", lambda value, bound: value <= bound),
    "lt": ("less than", lambda value, bound: value < bound),
}


class MismatchError(ValueError):
    """A value does not fit its key.

    Attributes:
        what: what is wrong.
        fix: what to write instead; may be empty.
    """

    def __init__(self, what: str, fix: str = "") -> None:
        super().__init__(what)
        self.what = what
        self.fix = fix


def coerce(key: Key, raw: Any) -> Any:
    """The value of `raw` for `key`; null gives None where the key takes it and its default elsewhere.

    Raises:
        MismatchError: wrong type, wrong choice or out of range.
    """
    if is_null(raw) or (isinstance(raw, Word) and raw.lower() == "none" and _takes_none(key)):
        return None if key.nullable else key.default
    value = _items(key, raw) if key.is_list else _one(key, raw)
    for item in value if isinstance(value, tuple) else (value,):
        _check_choice(key, item)
        _check_bounds(key, item)
    return value


def _takes_none(key: Key) -> bool:
    return key.nullable and not any("str" in kind for kind in key.kinds)


def _one(key: Key, raw: Any) -> Any:
    if "dict[str, Any]" in key.kinds:
        return _mapping(key, raw)
    if isinstance(raw, Mapping | list | tuple | set):
        raise MismatchError(
            f"{key.name} takes {_expected(key)}, not a {'mapping' if isinstance(raw, Mapping) else 'list'}"
        )
    if key.kinds == ("bool",):
        return _boolean(key, raw)
    if key.kinds == ("int",):
        return _integer(key, raw)
    if key.kinds == ("float",):
        return _number(key, raw)
    text = _text(raw)
    if "bool" in key.kinds and text.lower() in ("true", "false", "yes", "no"):
        return text.lower() in _YES
    return key.value_names.get(text.lower(), text) if text not in key.choices else text


def _text(raw: Any) -> str:
    return str(raw).lower() if isinstance(raw, bool) else str(raw)


def _boolean(key: Key, raw: Any) -> bool:
    text = _text(raw).strip().lower()
    if text in _YES:
        return True
    if text in _NO:
        return False
    raise MismatchError(f"{key.name} takes true or false, not {_shown(raw)}")


def _number(key: Key, raw: Any) -> float:
    try:
        value = None if isinstance(raw, bool) else float(str(raw).strip())
    except ValueError:
        value = None
    if value is None or not math.isfinite(value):
        raise MismatchError(f"{key.name} takes a number, not {_shown(raw)}")
    return value


def _integer(key: Key, raw: Any) -> int:
    text = _text(raw).strip()
    try:
        return int(text)
    except ValueError:
        pass
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not value.is_integer():
        raise MismatchError(f"{key.name} takes a whole number, not {_shown(raw)}")
    return int(value)


def _mapping(key: Key, raw: Any) -> Any:
    if isinstance(raw, Mapping):
        return plain_value(dict(raw))
    text = _text(raw).strip()
    if not text.startswith("{"):
        if "str" in key.kinds:
            return text
        raise MismatchError(f"{key.name} takes a mapping, not {_shown(raw)}", 'write it as {"name": value}')
    try:
        value = plain_value(parse_flow(text))
    except ValueError as error:
        raise MismatchError(f"{key.name} is no mapping: {error}") from None
    return value


def _items(key: Key, raw: Any) -> tuple[Any, ...]:
    if isinstance(raw, Mapping):
        raise MismatchError(f"{key.name} takes {_expected(key)}, not a mapping")
    if isinstance(raw, str) and raw.strip().startswith("[") and raw.strip().endswith("]"):
        try:
            raw = parse_flow(raw.strip())
        except ValueError as error:
            raise MismatchError(f"{key.name} is no list: {error}") from None
    parts = list(raw) if isinstance(raw, list | tuple | set | frozenset) else [raw]
    if any(isinstance(part, Mapping | list | tuple) for part in parts):
        raise MismatchError(f"{key.name} takes {_expected(key)}; an item of the list is a list or mapping itself")
    texts = [_text(part) for part in parts if part is not None]
    if not key.whole:
        if any("，" in text for text in texts):
            raise MismatchError(f"{key.name}: {', '.join(texts)} holds a full-width comma", "separate names with ','")
        texts = [piece.strip() for text in texts for piece in text.split(",")]
        texts = [text for text in texts if text]
    if key.kinds[0] == "tuple[float, ...]":
        return tuple(_number(key, text) for text in texts)
    return tuple(key.value_names.get(text.lower(), text) for text in texts)


def _check_choice(key: Key, value: Any) -> None:
    if not key.choices or value in key.choices or isinstance(value, bool):
        return
    near = nearest(str(value), key.choices)
    choices = ", ".join(key.choices)
    fix = f"did you mean {near}? choices: {choices}" if near else f"choices: {choices}"
    raise MismatchError(f"{key.name} cannot be {_shown(value)}", fix)


def _check_bounds(key: Key, value: Any) -> None:
    if not isinstance(value, int | float) or isinstance(value, bool):
        return
    for name, bound in key.bounds.items():
        words, holds = _BOUNDS[name]
        if not holds(value, bound):
            raise MismatchError(f"{key.name} must be {words} {_digits(bound)}, not {_digits(value)}")


def _expected(key: Key) -> str:
    names = {"int": "a whole number", "float": "a number", "bool": "true or false", "str": "text"}
    if key.is_list:
        return "a list, or names with ',' between them"
    return " or ".join(names.get(kind, "a mapping") for kind in key.kinds)


def _shown(raw: Any) -> str:
    text = str(raw)
    return repr(text if len(text) <= 60 else f"{text[:57]}...")


def _digits(value: float) -> str:
    """A whole number with all its digits, however large."""
    return str(value) if isinstance(value, int) else f"{value:g}"
