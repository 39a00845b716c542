"""JSON numbers within bounds, and multiples, as grammars. Bounded numbers are written without an exponent."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal

from tunesmith.serving.grammar import Count, Node, OneOf, Text, alt, seq

MOST_DIGITS = 15
_MOST_LISTED = 2000
_MOST_DIVISOR = 100
_LARGEST = 10**MOST_DIGITS - 1
_DIGIT = OneOf(frozenset(b"0123456789"))


class NoNumberError(ValueError):
    """No number fits, or the bounds have a form that no grammar is made for; the text says which."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """What a schema says about a number.

    Attributes:
        low: least; None: any.
        high: most; None: any.
        above: `low` itself does not fit.
        below: `high` itself does not fit.
        step: the number is a multiple of this; None: any.
    """

    low: Decimal | None = None
    high: Decimal | None = None
    above: bool = False
    below: bool = False
    step: Decimal | None = None

    @property
    def is_open(self) -> bool:
        """Whether there is no bound."""
        return self.low is None and self.high is None


def whole_numbers(bounds: Bounds) -> Node:
    """Whole numbers within bounds.

    Raises:
        NoNumberError: there are none, or the multiples cannot be written as a grammar.
    """
    low = -_LARGEST if bounds.low is None else _next_whole(bounds.low, bounds.above)
    high = _LARGEST if bounds.high is None else -_next_whole(-bounds.high, bounds.below)
    if low > high or low > _LARGEST or high < -_LARGEST:
        raise NoNumberError("no whole number lies between these bounds")
    step = bounds.step
    if step is None or (1 / step) % 1 == 0:  # every whole number is a multiple of 1, 0.5, 0.01, ...
        return _between(max(low, -_LARGEST), min(high, _LARGEST))
    if step % 1:
        raise NoNumberError(f"multipleOf {step} is neither whole nor 0.1, 0.01, ...")
    return _multiples(low, high, int(step), is_bounded=bounds.low is not None and bounds.high is not None)


def _next_whole(low: Decimal, above: bool) -> int:
    whole = -((-low) // 1)
    whole = whole + 1 if whole < low else whole
    return int(whole) + (above and whole == low)


def _multiples(low: int, high: int, step: int, *, is_bounded: bool) -> Node:
    if is_bounded:
        values = range(low + -low % step, high + 1, step)
        if not values:
            raise NoNumberError(f"no multiple of {step} lies between these bounds")
        if len(values) > _MOST_LISTED:
            raise NoNumberError(f"there are more than {_MOST_LISTED} multiples of {step} between these bounds")
        return alt(*(str(value).encode() for value in values))
    if (low, high) != (-_LARGEST, _LARGEST):
        raise NoNumberError("multipleOf needs both bounds or none")
    if step > _MOST_DIVISOR:
        raise NoNumberError(f"multipleOf above {_MOST_DIVISOR} needs bounds")
    return alt(b"0", seq(alt(b"", b"-"), _remainders(step)))


def _remainders(step: int) -> Node:
    """Positive multiples, digit by digit: what is left of the division so far decides what may come."""
    made: dict[tuple[int, int], Node | None] = {}

    def rest(left: int, digits: int) -> Node | None:
        """What may follow; None: no digits lead to a multiple any more."""
        if (left, digits) not in made:
            ends: list[Node | bytes] = [b""] if left == 0 else []
            ways = ends + (further(left, digits - 1, range(10)) if digits else [])
            made[left, digits] = alt(*ways) if ways else None
        return made[left, digits]

    def further(left: int, digits: int, values: range) -> list[Node | bytes]:
        found = [(digit, rest((left * 10 + digit) % step, digits)) for digit in values]
        return [seq(b"%d" % digit, node) for digit, node in found if node is not None]

    return alt(*further(0, MOST_DIGITS - 1, range(1, 10)))


def _between(low: int, high: int) -> Node:
    """Whole numbers from `low` to `high`; 0 has no sign."""
    ways: list[Node | bytes] = []
    if high >= 0:
        ways += _naturals(max(low, 0), high)
    if low < 0:
        ways += [seq(b"-", way) for way in _naturals(max(1, -high), -low)]
    return alt(*ways)


def _naturals(low: int, high: int) -> Iterator[Node]:
    """One node for each number of digits; none where `low` is above `high`."""
    if low > high:
        return
    for length in range(len(str(low)), len(str(high)) + 1):
        first = max(low, 10 ** (length - 1) if length > 1 else 0)
        last = min(high, 10**length - 1)
        yield _same_length(str(first), str(last))


def _same_length(first: str, last: str) -> Node:
    if not first:
        return Text(b"")
    if set(first) == {"0"} and set(last) == {"9"}:
        return Count(_DIGIT, len(first), len(first))
    if first[0] == last[0]:
        return seq(first[0].encode(), _same_length(first[1:], last[1:]))
    zeros, nines = "0" * (len(first) - 1), "9" * (len(first) - 1)
    ways: list[Node | bytes] = [
        seq(first[0].encode(), _same_length(first[1:], nines)),
        seq(last[0].encode(), _same_length(zeros, last[1:])),
    ]
    if middle := range(int(first[0]) + 1, int(last[0])):
        ways.append(seq(_digits(middle), Count(_DIGIT, len(zeros), len(zeros))))
    return alt(*ways)


def _digits(values: range) -> Node:
    return OneOf(frozenset(b"0123456789"[value] for value in values))


def numbers(bounds: Bounds) -> Node:
    """Numbers within bounds, of up to 15 digits: with more, 999.9... would be 1000 to readers that keep doubles.

    Raises:
        NoNumberError: there are none, or the multiples cannot be written as a grammar.
    """
    places = MOST_DIGITS
    if bounds.step is not None:
        if bounds.step % 1 == 0:
            return whole_numbers(bounds)
        places = -int(bounds.step.normalize().as_tuple().exponent)
        if bounds.step != Decimal(1).scaleb(-places):
            raise NoNumberError(f"multipleOf {bounds.step} is neither whole nor 0.1, 0.01, ...")
    low, high = bounds.low, bounds.high
    ways: list[Node] = []
    if high is None or high > 0 or (high == 0 and not bounds.below):
        is_low = low is not None and low >= 0
        ways += _positive(low if is_low and low else Decimal(0), high, is_low and bounds.above, bounds.below, places)
    if low is None or low < 0:
        is_high = high is not None and high < 0
        least = -high if is_high and high else Decimal(0)
        most = None if low is None else -low
        negative = _positive(least, most, bounds.below if is_high else True, bounds.above, places)
        ways += [seq(b"-", way) for way in negative]
    if not ways:
        raise NoNumberError("no number lies between these bounds")
    return alt(*ways)


def _positive(low: Decimal, high: Decimal | None, above: bool, below: bool, places: int) -> Iterator[Node]:
    """Numbers from 0 on; a bound may be left out itself."""
    first, most = int(low), _LARGEST if high is None else int(high)
    low_digits = _fraction(low)
    high_digits = None if high is None else _fraction(high)
    if high is not None and first > most:
        return
    if high is not None and first == most:
        yield from _with_fraction(first, _Left(low_digits, high_digits, above, below), places)
        return
    yield from _with_fraction(first, _Left(low_digits, None, above, False), places)
    last = most if high is None else most - 1
    for length, way in enumerate(_naturals(first + 1, last), len(str(first + 1))):
        kept = min(places, MOST_DIGITS - length)
        yield seq(way, alt(b"", seq(b".", Count(_DIGIT, 1, kept)))) if kept else way
    if high is not None:
        yield from _with_fraction(most, _Left(None, high_digits, False, below), places)


def _fraction(value: Decimal) -> str:
    """Digits behind the point, without zeros at the end."""
    return f"{value % 1:f}".partition(".")[2].rstrip("0")


@dataclass(frozen=True, slots=True)
class _Left:
    """What the digits still to come must reach and not pass; None: what came before has settled it.

    Attributes:
        low: digits of the least fraction, from here on.
        high: digits of the greatest.
        above: equal to the least is not enough.
        below: equal to the greatest is too much.
    """

    low: str | None
    high: str | None
    above: bool
    below: bool

    @property
    def may_end(self) -> bool:
        reaches = self.low is None or (not self.low and not self.above)
        stays = self.high is None or bool(self.high) or not self.below
        return reaches and stays

    def after(self, digit: int) -> _Left | None:
        """Behind one more digit; None: it does not fit."""
        low, high = self.low, self.high
        if low is not None:
            due = int(low[:1] or "0")
            if digit < due:
                return None
            low = low[1:] if digit == due else None
        if high is not None:
            due = int(high[:1] or "0")
            if digit > due:
                return None
            high = high[1:] if digit == due else None
        return _Left(low, high, self.above, self.below)


def _with_fraction(whole: int, left: _Left, places: int) -> Iterator[Node]:
    """A whole number with every fraction that fits behind it."""
    ways: list[Node | bytes] = [b""] if left.may_end else []
    more = _more_digits(left, min(places, MOST_DIGITS - len(str(whole)) + (whole == 0)))
    if more is not None:
        ways.append(seq(b".", more))
    if ways:
        yield seq(str(whole).encode(), alt(*ways))


def _more_digits(left: _Left, places: int) -> Node | None:
    """At least one more digit; None: none fits."""
    if places == 0:
        return None
    if left.low is None and left.high is None:
        return Count(_DIGIT, 1, places)
    ways: list[Node | bytes] = []
    for digit in range(10):
        behind = left.after(digit)
        if behind is None:
            continue
        more = _more_digits(behind, places - 1)
        ends: list[Node | bytes] = [b""] if behind.may_end else []
        if more is not None:
            ends.append(more)
        if ends:
            ways.append(seq(b"%d" % digit, alt(*ends)))
    return alt(*ways) if ways else None
