"""Reads the elements of one big JSON list without holding the list: memory is that of the largest row."""

from __future__ import annotations

import codecs
import json
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from tunesmith.core.errors import DataError, Problem

_CHUNK = 1 << 20
_MEND = "mend the text there; every row is {...}, rows are parted by commas"
_CUT_OFF = "it is cut off: get or write it again, or take the last row out and close the list with ]"
_SPACE = " \t\r\n"


class JsonArrayReader:
    """Iterates over the elements of a JSON list.

    Raises on iteration:
        DataError: broken JSON, with line, column and the text around the place.
    """

    def __init__(self, handle: IO[bytes], file: Path) -> None:
        self._handle = handle
        self._file = file
        self._decoder = codecs.getincrementaldecoder("utf-8")()
        self._buffer = ""
        self._position = 0
        self._at_end = False
        self._line = 1
        self._column = 0

    def __iter__(self) -> Iterator[Any]:
        self._skip("[")
        if self._peek() == "]":
            self._finish()
            return
        while True:
            yield self._element()
            mark = self._peek()
            if mark == "]":
                self._finish()
                return
            if mark != ",":
                raise self._error(
                    "expected a comma or ] after a row" if mark else "the list is not closed: ] is missing"
                )
            self._skip(",")
            if self._peek() == "]":
                raise self._error("a comma stands before the closing ]")

    def _fill(self, size: int = _CHUNK) -> bool:
        """Reads on; False at the end of the file."""
        if self._at_end:
            return False
        data = self._handle.read(size)
        self._at_end = not data
        try:
            self._buffer = self._buffer[self._drop_consumed() :] + self._decoder.decode(data, final=self._at_end)
        except UnicodeDecodeError as error:
            where = f"{self._file}:{self._line + self._buffer.count(chr(10))}"
            raise DataError([Problem(f"not UTF-8 text ({error.reason})", where, "save the file as UTF-8")]) from error
        return not self._at_end

    def _drop_consumed(self) -> int:
        """Books the consumed text's lines and returns how much of the buffer it was."""
        consumed = self._position
        newlines = self._buffer.count("\n", 0, consumed)
        self._line += newlines
        self._column = consumed - self._buffer.rfind("\n", 0, consumed) - 1 if newlines else self._column + consumed
        self._position = 0
        return consumed

    def _peek(self) -> str:
        """The next character that is no space; empty at the end."""
        while True:
            while self._position < len(self._buffer) and self._buffer[self._position] in _SPACE:
                self._position += 1
            if self._position < len(self._buffer):
                return self._buffer[self._position]
            if not self._fill():
                return ""

    def _skip(self, expected: str) -> None:
        assert self._peek() == expected
        self._position += 1

    def _element(self) -> Any:
        self._peek()
        size = _CHUNK
        while True:
            try:
                value, end = json.JSONDecoder().raw_decode(self._buffer, self._position)
            except json.JSONDecodeError as error:
                # The buffer may end within a row: it is broken only where the fault lies far before its end.
                is_cut = error.pos >= len(self._buffer) - _CHUNK or error.msg.startswith("Unterminated string")
                if self._at_end and error.pos >= len(self._buffer.rstrip()):
                    raise self._error("the file ends within a row", len(self._buffer), _CUT_OFF) from error
                if self._at_end or not is_cut:
                    raise self._error(error.msg, error.pos) from error
                self._fill(size)
                size *= 2
                continue
            except RecursionError as error:
                raise self._error("the JSON is nested too deep") from error
            if end == len(self._buffer) and self._fill():
                continue  # a number may go on in the next chunk
            self._position = end
            return value

    def _finish(self) -> None:
        self._skip("]")
        if self._peek():
            raise self._error("text after the closing ]")

    def _error(self, message: str, position: int | None = None, fix: str = _MEND) -> DataError:
        place = self._position if position is None else position
        around = self._buffer[max(place - 30, 0) : place + 30]
        newlines = self._buffer.count("\n", 0, place)
        column = place - self._buffer.rfind("\n", 0, place) if newlines else self._column + place + 1
        what = f"broken JSON: {message} at column {column}, near {around!r}"
        return DataError([Problem(what, f"{self._file}:{self._line + newlines}", fix)])
