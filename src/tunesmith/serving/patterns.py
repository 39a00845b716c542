r"""Regular expressions of JSON Schema's `pattern` as grammars of what a JSON string holds between its quotes.

Built: characters, classes, groups, alternatives, quantifiers, `^` and `$` at the ends. Look-around, references to
groups and word boundaries are refused. Dialects differ in what `\w`, `\d` and `\s` are: an answer keeps to characters
that fit in all of them, so that whoever checks it agrees.
"""

from __future__ import annotations

import functools
import itertools
import unicodedata
from dataclasses import dataclass

from tunesmith.serving.code_points import LAST, Range, character, complement, sets
from tunesmith.serving.grammar import Count, Node, alt, seq

_MOST_REPEATS = 1000
_MOST_GROUPS = 50
_DIGITS: list[Range] = [(0x30, 0x39)]
_WORD: list[Range] = [*_DIGITS, (0x41, 0x5A), (0x5F, 0x5F), (0x61, 0x7A)]
_BLANK: list[Range] = [(9, 13), (0x20, 0x20)]
_CLASSES = {"d": _DIGITS, "w": _WORD, "s": _BLANK}
"""Characters that belong to a class in every dialect."""
_CATEGORIES = {"d": ("Nd",), "w": ("L", "M", "N", "Pc"), "s": ("Z",)}
_MORE = {
    "d": [],
    "w": [(0x200C, 0x200D)],
    "s": [(9, 13), (0x1C, 0x1F), (0x85, 0x85), (0x180E, 0x180E), (0xFEFF, 0xFEFF)],
}
"""Those that belong to it in some: categories of Unicode, and others."""
_CONTROLS = {"n": 0x0A, "r": 0x0D, "t": 0x09, "f": 0x0C, "v": 0x0B, "0": 0}
_LINE_ENDS: list[Range] = [(0x0A, 0x0A), (0x0D, 0x0D), (0x2028, 0x2029)]
ANY = character([(0, LAST)])
"""Any character."""


class PatternError(ValueError):
    """A pattern is no regular expression, or uses what is not built."""


def string_matching(pattern: str) -> Node:
    """What a JSON string holds that `pattern` is found in.

    Raises:
        PatternError: says what and where.
    """
    return _Parser(pattern).whole()


@dataclass(slots=True)
class _Parser:
    text: str
    at: int = 0
    groups: int = 0

    def whole(self) -> Node:
        """Alternatives at the outermost level have ends of their own: `^a|b$` is found as (^a) or (b$)."""
        ways = [self._anchored()]
        while self._take("|"):
            ways.append(self._anchored())
        if self.at < len(self.text):
            raise self._error("this bracket closes nothing")
        return alt(*ways)

    def _anchored(self) -> Node:
        begins = self._take("^")
        node = self._sequence(is_outermost=True)
        ends = self._take("$")
        anything = Count(ANY, 0, None)
        before: tuple[Node, ...] = () if begins else (anything,)
        behind: tuple[Node, ...] = () if ends else (anything,)
        return seq(*before, node, *behind)

    def _alternatives(self) -> Node:
        ways = [self._sequence()]
        while self._take("|"):
            ways.append(self._sequence())
        return alt(*ways)

    def _sequence(self, *, is_outermost: bool = False) -> Node:
        parts: list[Node] = []
        while self.at < len(self.text) and self._peek() not in "|)":
            if self._peek() == "$" and is_outermost and self._is_last_of_branch():
                break
            parts.append(self._quantified(self._atom()))
        return seq(*parts)

    def _is_last_of_branch(self) -> bool:
        return self.text[self.at + 1 : self.at + 2] in ("", "|")

    def _quantified(self, atom: Node) -> Node:
        begin = self.at
        least, most = self._quantifier()
        if self.at == begin:
            return atom
        if most is not None and (most < least or most > _MOST_REPEATS):
            raise self._error(f"a repetition must be in order and at most {_MOST_REPEATS}")
        self._take("?")  # lazy or not: the same texts match
        return Count(atom, least, most)

    def _quantifier(self) -> tuple[int, int | None]:
        for sign, bounds in (("*", (0, None)), ("+", (1, None)), ("?", (0, 1))):
            if self._take(sign):
                return bounds
        if self._peek() != "{":
            return 1, 1
        body, found, _ = self.text[self.at + 1 :].partition("}")
        first, comma, last = body.partition(",")
        if not found or not first.isdecimal() or (last and not last.isdecimal()):
            raise self._error("write {2}, {2,} or {2,5}")
        self.at += len(body) + 2
        least = int(first)
        if least > _MOST_REPEATS:
            raise self._error(f"a repetition must be at most {_MOST_REPEATS}")
        return least, (int(last) if last else None) if comma else least

    def _atom(self) -> Node:
        sign = self._next()
        if sign == "(":
            return self._group()
        if sign == "[":
            return self._character(self._set())
        if sign == ".":
            return self._character(complement(_LINE_ENDS))
        if sign == "\\":
            return self._character(self._escape())
        if sign in "*+?":
            raise self._error("a quantifier with nothing before it", -1)
        if sign in "^$":
            raise self._error(f"{sign} is understood at the ends only", -1)
        return self._character([(ord(sign), ord(sign))])

    def _character(self, ranges: list[Range]) -> Node:
        if not sets(ranges):
            raise self._error("this matches no character", -1)
        return character(ranges)

    def _group(self) -> Node:
        if self._take("?"):
            if self._take("<") and self._peek() not in "=!":
                while self._next() != ">":
                    pass
            elif not self._take(":"):
                raise self._error("look-around and flags are not built", -1)
        self.groups += 1
        if self.groups > _MOST_GROUPS:
            raise self._error(f"groups may stand {_MOST_GROUPS} deep at most")
        node = self._alternatives()
        if not self._take(")"):
            raise self._error("a bracket is not closed")
        self.groups -= 1
        return node

    def _set(self) -> list[Range]:
        is_negated = self._take("^")
        found: list[Range] = []
        while self._peek() != "]":
            first = self._member(is_negated)
            if self._peek() == "-" and self.text[self.at + 1 : self.at + 2] not in ("]", ""):
                self.at += 1
                last = self._member(is_negated)
                if len(first) != 1 or len(last) != 1 or first[0][0] > last[0][1] or first[0][0] != first[0][1]:
                    raise self._error("a range in brackets must be two characters in order")
                found.append((first[0][0], last[0][1]))
            else:
                found += first
        self.at += 1
        if not found:
            raise self._error("empty brackets match nothing")
        return complement(found) if is_negated else found

    def _member(self, is_negated: bool) -> list[Range]:
        sign = self._next()
        if sign == "\\":
            return [(8, 8)] if self._take("b") else self._escape(is_left_out=is_negated)
        return [(ord(sign), ord(sign))]

    def _escape(self, *, is_left_out: bool = False) -> list[Range]:
        sign = self._next()
        if sign.lower() in _CLASSES:
            is_wide = is_left_out is not sign.isupper()
            ranges = _wide(sign.lower()) if is_wide else _CLASSES[sign.lower()]
            return complement(ranges) if sign.isupper() else ranges
        if sign in _CONTROLS:
            return [(_CONTROLS[sign], _CONTROLS[sign])]
        if sign in "xu":
            digits = self.text[self.at : self.at + (2 if sign == "x" else 4)]
            self.at += len(digits)
            try:
                code = int(digits, 16)
            except ValueError:
                raise self._error(f"\\{sign} wants hexadecimal digits") from None
            return [(code, code)]
        if sign.isalnum():
            raise self._error(f"\\{sign} is not built", -1)
        return [(ord(sign), ord(sign))]

    def _peek(self) -> str:
        return self.text[self.at : self.at + 1] or "\0"

    def _next(self) -> str:
        if self.at >= len(self.text):
            raise self._error("the pattern ends too early")
        self.at += 1
        return self.text[self.at - 1]

    def _take(self, sign: str) -> bool:
        if self.text.startswith(sign, self.at):
            self.at += 1
            return True
        return False

    def _error(self, why: str, shift: int = 0) -> PatternError:
        return PatternError(f"at character {self.at + 1 + shift}: {why}")


@functools.cache
def _wide(name: str) -> list[Range]:
    """Characters that belong to a class in some dialect."""
    categories = _CATEGORIES[name]
    runs = itertools.groupby(range(LAST + 1), lambda code: unicodedata.category(chr(code)).startswith(categories))
    found = [(codes[0], codes[-1]) for is_in, run in runs if is_in and (codes := list(run))]
    return sets([*found, *_CLASSES[name], *_MORE[name]])
