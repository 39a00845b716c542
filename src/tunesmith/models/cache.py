"""Our cache of converted models: where it lies and how a copy is found again. Loads neither torch nor weights."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from tunesmith.core import env
from tunesmith.core.runs import write_json

RECORD_FILE = "tunesmith_model.json"
"""In every converted folder: name, source, source_key, sha256, dtype, bytes, changes."""


def folder() -> Path:
    """Where converted models are kept."""
    return env.home() / "models"


def source_key(file: Path) -> str:
    """Names a file by path, size and modification time, so that it is hashed only when one of them changed."""
    stat = file.stat()
    return hashlib.sha256(f"{file.resolve()}|{stat.st_size}|{stat.st_mtime_ns}".encode()).hexdigest()


def _index(file: Path) -> Path:
    return folder() / ".index" / f"{source_key(file)}.json"


def find_converted(file: Path) -> Path | None:
    """The finished conversion of exactly this file, or None."""
    try:
        found = folder() / json.loads(_index(file).read_text(encoding="utf-8"))["folder"]
    except (OSError, ValueError, KeyError):
        return None
    return found if (found / RECORD_FILE).is_file() else None


def remember(file: Path, converted: Path) -> None:
    """Notes which folder holds the conversion of a file."""
    write_json(_index(file), {"folder": converted.name})


def is_current(record: dict[str, str]) -> bool:
    """Whether the file that a copy was made of is gone or still the same."""
    source = Path(record.get("source", ""))
    return not source.is_file() or source_key(source) == record.get("source_key")
