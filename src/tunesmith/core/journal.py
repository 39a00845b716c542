"""Rows of long work as JSON lines, written one by one, so that a killed run goes on with what is there."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tunesmith.core.errors import TunesmithError
from tunesmith.core.log import get_logger
from tunesmith.core.runs import write_atomic, write_json

_logger = get_logger(__name__)


def state_file(file: Path) -> Path:
    """The file beside some rows that says what they belong to."""
    return file.with_name(f"{file.stem}.state.json")


def known_fingerprint(file: Path) -> str | None:
    """What the rows of a file belong to; None where nobody says."""
    try:
        return str(json.loads(state_file(file).read_text(encoding="utf-8"))["fingerprint"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def refuse_others(file: Path, fingerprint: str) -> None:
    """Rows of something else are not gone on with, and not written over.

    Raises:
        TunesmithError: the file holds some.
    """
    if whole_lines(file) and known_fingerprint(file) != fingerprint:
        raise TunesmithError(
            f"{file} holds results of another model, task or settings: choose another folder, or delete it"
        )


def begin_rows(file: Path, fingerprint: str, total: int) -> None:
    """Notes what the rows of a file belong to and cuts off a torn last one; `total` 0: nobody knows yet."""
    write_json(state_file(file), {"fingerprint": fingerprint, "rows": total})
    lines = whole_lines(file)
    with file.open("ab") as handle:
        handle.truncate(sum(map(len, lines)))
    if lines:
        of_all = f" of {total}" if total else ""
        _logger.info("%s: %d%s rows are there, going on with the next", file, len(lines), of_all)


def row_line(row: dict[str, Any]) -> bytes:
    """A row as it is written."""
    return (json.dumps(row, ensure_ascii=False) + "\n").encode()


def whole_rows(content: bytes) -> list[bytes]:
    """The lines up to the first that is torn or no JSON object, with their line ends."""
    lines: list[bytes] = []
    for line in content.splitlines(keepends=True):
        try:
            is_whole = line.endswith(b"\n") and isinstance(json.loads(line), dict)
        except ValueError:
            is_whole = False
        if not is_whole:
            break
        lines.append(line)
    return lines


def whole_lines(file: Path) -> list[bytes]:
    """`whole_rows` of a file; none where there is no file."""
    return whole_rows(file.read_bytes()) if file.is_file() else []


def read_rows(file: Path) -> list[dict[str, Any]]:
    """The whole rows of a file; none where there is no file."""
    return [json.loads(line) for line in whole_lines(file)]


class Journal:
    """Rows in any order, put in order when all are there. What belongs to something else is never written over.

    Args:
        file: `NAME.jsonl`; `NAME.state.json` beside it says what its rows belong to.
        fingerprint: of everything that decides what the rows hold.
    """

    def __init__(self, file: Path, fingerprint: str) -> None:
        self.file = file
        self._fingerprint = fingerprint
        self._handle: Any = None

    def begin(self, total: int) -> list[dict[str, Any]]:
        """The rows that are there already; opens the file.

        Raises:
            TunesmithError: the file belongs to something else.
        """
        self.file.parent.mkdir(parents=True, exist_ok=True)
        refuse_others(self.file, self._fingerprint)
        begin_rows(self.file, self._fingerprint, total)
        self._handle = self.file.open("ab")
        return read_rows(self.file)

    def append(self, row: dict[str, Any]) -> None:
        """Writes one row at once."""
        self._handle.write(row_line(row))
        self._handle.flush()

    def close(self) -> None:
        """Closes the file; safe to call twice."""
        if self._handle is not None:
            self._handle.close()
            self._handle = None

    def rewrite(self, rows: list[dict[str, Any]]) -> None:
        """Puts rows in the place of all, atomically, and closes the journal."""
        self.close()
        write_atomic(self.file, b"".join(map(row_line, rows)))
