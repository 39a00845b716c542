"""Rows of long work as JSON lines, written one by one, so that a killed run goes on with what is there."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tunesmith.core.errors import TunesmithError
from tunesmith.core.log import get_logger
from tunesmith.core.runs import write_atomic, write_json

_logger = get_logger(__name__)


class Journal:
    """A file of JSON objects, one a line, and beside it a note of what it belongs to.

    Args:
        file: `NAME.jsonl`; the note is `NAME.state.json`.
        fingerprint: of everything that decides what the rows hold.
    """

    def __init__(self, file: Path, fingerprint: str) -> None:
        self.file = file
        self._fingerprint = fingerprint
        self._state = file.with_name(f"{file.stem}.state.json")
        self._handle: Any = None

    def begin(self, total: int, *, keep_others: bool = False) -> list[dict[str, Any]]:
        """Finds the whole rows that are there already, cuts off a torn last one, and opens the file.

        Args:
            total: rows that there will be.
            keep_others: rows of another fingerprint are an error; otherwise they are dropped with a warning.

        Raises:
            TunesmithError: the file belongs to something else and is kept.
        """
        self.file.parent.mkdir(parents=True, exist_ok=True)
        lines = whole_lines(self.file)
        if lines and self._known() != self._fingerprint:
            if keep_others:
                raise TunesmithError(
                    f"{self.file} holds results of another model, task or settings: choose another folder, or delete it"
                )
            _logger.warning("%s is of another model, data or settings: it is written anew", self.file)
            lines = []
        write_json(self._state, {"fingerprint": self._fingerprint, "rows": total})
        self._handle = self.file.open("ab")
        self._handle.truncate(sum(map(len, lines)))
        if lines:
            _logger.info("%s: %d of %d rows are there, going on with the next", self.file, len(lines), total)
        return [json.loads(line) for line in lines]

    def _known(self) -> Any:
        try:
            return json.loads(self._state.read_text(encoding="utf-8")).get("fingerprint")
        except (OSError, ValueError, AttributeError):
            return None

    def append(self, row: dict[str, Any]) -> None:
        """Writes one row at once."""
        self._handle.write(_line(row))
        self._handle.flush()

    def close(self) -> None:
        """Closes the file; safe to call twice."""
        if self._handle is not None:
            self._handle.close()
            self._handle = None

    def rewrite(self, rows: list[dict[str, Any]]) -> None:
        """Puts other rows in the place of all, atomically; the journal is closed by it."""
        self.close()
        write_atomic(self.file, b"".join(map(_line, rows)))


def _line(row: dict[str, Any]) -> bytes:
    return (json.dumps(row, ensure_ascii=False) + "\n").encode()


def whole_lines(file: Path) -> list[bytes]:
    """The lines of a file up to the first that is torn or no JSON object, with their line ends."""
    lines: list[bytes] = []
    if not file.is_file():
        return lines
    for line in file.read_bytes().splitlines(keepends=True):
        try:
            is_whole = line.endswith(b"\n") and isinstance(json.loads(line), dict)
        except ValueError:
            is_whole = False
        if not is_whole:
            break
        lines.append(line)
    return lines


def read_rows(file: Path) -> list[dict[str, Any]]:
    """The whole rows of a file; none where there is no file."""
    return [json.loads(line) for line in whole_lines(file)]
