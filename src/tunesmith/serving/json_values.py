"""JSON's values as grammars, and what a schema may demand of one string or number. Objects and lists stand elsewhere.

Whitespace and digits are bounded, so that no answer fills up with them.
"""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from typing import Any

from tunesmith.serving.grammar import Count, Node, Text, alt, one_of, seq
from tunesmith.serving.numbers_between import MOST_DIGITS, Bounds, NoNumberError, numbers, whole_numbers
from tunesmith.serving.patterns import ANY, PatternError, string_matching

MOST_LENGTH = 4096
_MOST_INDENT = 16
_DIGIT = one_of(b"0123456789")
_HEX = one_of(b"0123456789abcdefABCDEF")

BLANK = alt(b"", b" ", seq(b"\n", Count(one_of(b" \t"), 0, _MOST_INDENT)))
_NOT_D = one_of(b"0123456789abcefABCEF")
_CODE = alt(seq(_NOT_D, _HEX, _HEX, _HEX), seq(one_of(b"dD"), one_of(b"01234567"), _HEX, _HEX))
SAFE = frozenset(range(0x20, 0x100)) - frozenset(b'"\\')
"""Bytes that a JSON string holds as they are; those from 0x80 on are parts of characters."""
CHARACTER = alt(ANY, b"\\/", seq(b"\\u", _CODE))
"""One character of a string, in any way that JSON may write it."""
STRING = seq(b'"', Count(CHARACTER, 0, None), b'"')
_WHOLE = alt(b"0", seq(one_of(b"123456789"), Count(_DIGIT, 0, MOST_DIGITS - 1)))
INTEGER = seq(alt(b"", b"-"), _WHOLE)
_FRACTION = seq(b".", Count(_DIGIT, 1, MOST_DIGITS))
_EXPONENT = seq(one_of(b"eE"), alt(b"", b"+", b"-"), Count(_DIGIT, 1, 2))
NUMBER = seq(INTEGER, alt(b"", _FRACTION), alt(b"", _EXPONENT))
SIMPLE: Mapping[str, Node] = {
    "string": STRING,
    "number": NUMBER,
    "integer": INTEGER,
    "boolean": alt(b"true", b"false"),
    "null": Text(b"null"),
}

OF_STRINGS = ("minLength", "maxLength", "pattern", "format")
OF_NUMBERS = ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf")

_HOUR = "([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9]([.][0-9]{1,6})?"
_LONG, _SHORT = "(0[13578]|1[02])-(0[1-9]|[12][0-9]|3[01])", "(0[469]|11)-(0[1-9]|[12][0-9]|30)"
_DAY = f"[0-9]{{4}}-({_LONG}|{_SHORT}|02-(0[1-9]|1[0-9]|2[0-8]))"
_ZONE = "(Z|[+-]([01][0-9]|2[0-3]):[0-5][0-9])"
_BYTE_VALUE = "(25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])"
_LABEL = "[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
_HEX4 = "[0-9A-Fa-f]{1,4}"
FORMATS = {
    "date": f"^{_DAY}$",
    "time": f"^{_HOUR}{_ZONE}$",
    "date-time": f"^{_DAY}T{_HOUR}{_ZONE}$",
    "duration": "^P([0-9]{1,9}W|([0-9]{1,9}D)?T([0-9]{1,9}H)?([0-9]{1,9}M)?[0-9]{1,9}S|[0-9]{1,9}D)$",
    "email": f"^[A-Za-z0-9_+-]+([.][A-Za-z0-9_+-]+)*@{_LABEL}([.]{_LABEL})+$",
    "hostname": f"^{_LABEL}([.]{_LABEL})*$",
    "ipv4": f"^({_BYTE_VALUE}[.]){{3}}{_BYTE_VALUE}$",
    "ipv6": f"^({_HEX4}:){{7}}{_HEX4}$",
    "uuid": "^[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}$",
}
"""Format -> texts of that format. Not all of them: 29 February and the short forms of ipv6, for two, are left out."""
_FORMATS_OF_NUMBERS = ("int64", "float", "double")
"""OpenAPI's; any number that comes has them, for none has more than 15 digits in a row."""


class NotHeldError(ValueError):
    """A keyword cannot be held to.

    Attributes:
        keyword: which.
    """

    def __init__(self, keyword: str, why: str) -> None:
        super().__init__(why)
        self.keyword = keyword


def string_of(schema: Mapping[str, Any]) -> Node:
    """A string as a schema demands it.

    Raises:
        NotHeldError: a keyword is wrong, not built, or cannot be combined.
    """
    asked = [name for name in OF_STRINGS if name in schema]
    if not asked:
        return STRING
    lengths = "minLength" in schema or "maxLength" in schema
    if len([name for name in ("pattern", "format") if name in schema]) + lengths > 1:
        raise NotHeldError(asked[-1], f"cannot be combined with {asked[0]} here")
    if lengths:
        least, most = _length(schema, "minLength") or 0, _length(schema, "maxLength")
        if most is not None and most < least:
            raise NotHeldError("maxLength", "is less than minLength")
        return seq(b'"', Count(CHARACTER, least, most), b'"')
    if "format" in schema and schema["format"] not in FORMATS:
        raise NotHeldError("format", f"{schema['format']!r} is not built; there are {', '.join(FORMATS)}")
    pattern = FORMATS[schema["format"]] if "format" in schema else schema["pattern"]
    if not isinstance(pattern, str):
        raise NotHeldError("pattern", "must be a text")
    try:
        return seq(b'"', string_matching(pattern), b'"')
    except PatternError as error:
        raise NotHeldError("pattern", str(error)) from error


def _length(schema: Mapping[str, Any], name: str) -> int | None:
    value = schema.get(name)
    if value is not None and not is_count(value, MOST_LENGTH):
        raise NotHeldError(name, f"must be a whole number up to {MOST_LENGTH}")
    return value


def is_count(value: Any, most: int) -> bool:
    """Whether a value of a schema is a whole number from 0 to `most`."""
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= most


def number_of(kind: str, schema: Mapping[str, Any]) -> Node:
    """A number or whole number as a schema demands it.

    Raises:
        NotHeldError: a keyword is wrong, or no number fits.
    """
    form = schema.get("format")
    if form is not None and form not in _FORMATS_OF_NUMBERS and schema.get("type") == kind:
        raise NotHeldError("format", f"{form!r} is not built for numbers; send minimum and maximum")
    asked = [name for name in OF_NUMBERS if name in schema]
    if not asked:
        return SIMPLE[kind]
    found = {name: _decimal(schema[name], name) for name in asked}
    low, above = _tighter(found.get("minimum"), found.get("exclusiveMinimum"), 1)
    high, below = _tighter(found.get("maximum"), found.get("exclusiveMaximum"), -1)
    step = found.get("multipleOf")
    if step is not None and step <= 0:
        raise NotHeldError("multipleOf", "must be above 0")
    try:
        return (whole_numbers if kind == "integer" else numbers)(Bounds(low, high, above, below, step))
    except NoNumberError as error:
        raise NotHeldError(asked[-1], str(error)) from error


def _decimal(value: Any, name: str) -> Decimal:
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise NotHeldError(name, "must be a number")
    number = Decimal(str(value))
    if abs(number) >= Decimal(10) ** MOST_DIGITS or number != round(number, MOST_DIGITS):
        raise NotHeldError(name, f"may have {MOST_DIGITS} digits before and behind the point")
    return number


def _tighter(bound: Decimal | None, exclusive: Decimal | None, sign: int) -> tuple[Decimal | None, bool]:
    """The bound that rules, and whether it is left out itself."""
    if exclusive is None or (bound is not None and sign * bound > sign * exclusive):
        return bound, False
    return exclusive, True
