"""JSON as language models write it: fenced, after a thought, with trailing commas, unescaped quotes, or cut off.

What can be read with certainty is given; what was cut off is left out and said to be.
"""

from __future__ import annotations

import re
from typing import Any

_THOUGHT = re.compile(r"<(think|thinking|thought|reasoning)>.*?(?:</\1>|\Z)|◁think▷.*?(?:◁/think▷|\Z)", re.DOTALL)
_END_OF_THOUGHT = re.compile(r"\A.*(?:</think>|◁/think▷)", re.DOTALL)
_BLANK = re.compile(r"(?:\s|//[^\n]*(?:\n|\Z))*")
_WORD = re.compile(r"[A-Za-z_\u4e00-\u9fff][\w\u4e00-\u9fff]*")
_NUMBER = re.compile(r"-?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?")
_BARE = re.compile(r"(?:[A-Za-z_]\w*\s*[:：]|(?:-?[\d.]+|true|false|null)\s*[,，\]}])")
_CONSTANTS = {"true": True, "false": False, "null": None, "True": True, "False": False, "None": None}
_ESCAPES = {"n": "\n", "t": "\t", "r": "\r", "b": "\b", "f": "\f"}
_QUOTES = {'"': '"', "'": "'", "“": "”"}
_DEEPEST = 12


class _CutError(Exception):
    """The text ends inside a value.

    Attributes:
        whole: the values inside that are whole.
    """

    def __init__(self, whole: Any = None) -> None:
        super().__init__("cut")
        self.whole = whole


class _BrokenError(Exception):
    """This is no JSON, with all tolerance."""


def without_thoughts(text: str) -> str:
    """An answer without the thinking before it; where only the end mark is there, all before it was thought."""
    text = _THOUGHT.sub("", text)
    return _END_OF_THOUGHT.sub("", text)


def find_objects(text: str) -> tuple[list[dict[str, Any]], bool]:
    """The outermost objects of an answer, in order, those of lists included.

    Args:
        text: an answer, fences and words around the JSON and all.

    Returns:
        The objects that are whole, and whether the text broke off inside one.
    """
    text = without_thoughts(text)
    found: list[dict[str, Any]] = []
    place, was_cut = 0, False
    while (place := _next_open(text, place)) >= 0:
        reader = _Reader(text, place)
        try:
            value = reader.value(0)
        except _CutError as cut:
            found += _objects(cut.whole)
            was_cut = True
            # Broken rather than cut, maybe: whole objects may follow.
            place = place + 1 if text[place] == "[" and not _objects(cut.whole) else len(text)
        except _BrokenError:
            place += 1
        else:
            found += _objects(value)
            place = reader.place
    return found, was_cut


def _next_open(text: str, place: int) -> int:
    places = [found for found in (text.find("{", place), text.find("[", place)) if found >= 0]
    return min(places, default=-1)


def _objects(value: Any) -> list[dict[str, Any]]:
    """The objects of a value: itself, or those of a list, or of the only list that an object holds."""
    if isinstance(value, list):
        return [one for item in value for one in _objects(item)]
    if not isinstance(value, dict):
        return []
    lists = [item for item in value.values() if isinstance(item, list) and any(isinstance(one, dict) for one in item)]
    if len(lists) == 1 and not any(isinstance(item, str) for item in value.values()) and "turns" not in value:
        return _objects(lists[0])
    return [value]


class _Reader:
    """Reads one value from a place on."""

    def __init__(self, text: str, place: int) -> None:
        self.text = text
        self.place = place

    def value(self, depth: int) -> Any:
        """The value at the place, blanks and comments before it skipped."""
        if depth > _DEEPEST:
            raise _BrokenError
        sign = self._peek()
        if sign == "{":
            return self._object(depth)
        if sign == "[":
            return self._list(depth)
        if sign in _QUOTES:
            return self._string()
        for pattern in (_NUMBER, _WORD):
            if match := pattern.match(self.text, self.place):
                self.place = match.end()
                if pattern is _NUMBER:
                    return float(match[0]) if any(sign in match[0] for sign in ".eE") else int(match[0])
                if match[0] in _CONSTANTS:
                    return _CONSTANTS[match[0]]
        raise _BrokenError

    def _peek(self) -> str:
        """The next sign that is no blank."""
        match = _BLANK.match(self.text, self.place)
        self.place = match.end() if match else self.place
        if self.place >= len(self.text):
            raise _CutError
        return self.text[self.place]

    def _list(self, depth: int) -> list[Any]:
        items: list[Any] = []
        self.place += 1
        try:
            while self._peek() != "]":
                if self.text[self.place] in ",，":
                    self.place += 1
                    continue
                items.append(self.value(depth + 1))
        except _CutError as cut:
            raise _CutError([*items, *_objects(cut.whole)]) from None
        self.place += 1
        return items

    def _object(self, depth: int) -> dict[str, Any]:
        found: dict[str, Any] = {}
        self.place += 1
        while (sign := self._peek()) != "}":
            if sign in ",，":
                self.place += 1
                continue
            name = self._name()
            if self._peek() not in ":：":
                raise _BrokenError
            self.place += 1
            found[name] = self.value(depth + 1)
        self.place += 1
        return found

    def _name(self) -> str:
        if self._peek() in _QUOTES:
            return self._string()
        match = _WORD.match(self.text, self.place)
        if not match:
            raise _BrokenError
        self.place = match.end()
        return match[0]

    def _string(self) -> str:
        """A string; a quotation mark inside it that nobody escaped does not end it."""
        end = _QUOTES[self.text[self.place]]
        self.place += 1
        parts: list[str] = []
        while self.place < len(self.text):
            sign = self.text[self.place]
            self.place += 1
            if sign == "\\":
                parts.append(self._escaped())
            elif sign == end and self._ends_here():
                return "".join(parts)
            else:
                parts.append(sign)
        raise _CutError

    def _escaped(self) -> str:
        if self.place >= len(self.text):
            raise _CutError
        sign = self.text[self.place]
        self.place += 1
        if sign != "u":
            return _ESCAPES.get(sign, sign)
        digits = self.text[self.place : self.place + 4]
        try:
            code = int(digits, 16)
        except ValueError:
            return "u"
        self.place += 4
        if 0xD800 <= code < 0xDC00 and self.text[self.place : self.place + 2] == "\\u":
            low = int(self.text[self.place + 2 : self.place + 6] or "0", 16)
            self.place += 6
            code = 0x10000 + ((code - 0xD800) << 10) + (low - 0xDC00)
        return chr(code) if not 0xD800 <= code < 0xE000 else "\ufffd"

    def _ends_here(self) -> bool:
        """Whether what follows a quotation mark is what follows a whole string."""
        match = _BLANK.match(self.text, self.place)
        following = self.text[match.end() if match else self.place :][:40]
        if not following or following[0] in "}]:：":
            return True
        if following[0] not in ",，":
            return False
        rest = following[1:].lstrip()
        return not rest or rest[0] in "\"'“{[}]" or bool(_BARE.match(rest))
