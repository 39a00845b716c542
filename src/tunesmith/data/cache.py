"""Tokenized data sets on disk: one file each, named by everything that its content depends on."""

from __future__ import annotations

import hashlib
import json
import os
import zipfile
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from tunesmith.core import env
from tunesmith.core.log import get_logger
from tunesmith.core.types import Source
from tunesmith.data.report import DatasetReport, Reject
from tunesmith.data.rows import TokenizedRows

logger = get_logger(__name__)

LIMIT_BYTES = 8 << 30
_ARRAYS = ("ids", "trained", "offsets", "file_index", "numbers", "lost", "odd")


def digest(*parts: Any) -> str:
    """sha256 over the JSON of `parts`."""
    text = json.dumps(parts, sort_keys=True, ensure_ascii=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()


def hash_file(path: Path) -> str:
    """sha256 of a file's content."""
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


@cache
def code_version() -> str:
    """Hash of this package's source files: rows made by other code are made anew."""
    folder = Path(__file__).parent
    files = sorted(path for path in folder.rglob("*.py") if path.is_file())
    return digest([(path.relative_to(folder).as_posix(), hash_file(path)) for path in files])


def tokenizer_version(tokenizer: Any) -> str:
    """Hash of what decides a tokenizer's ids: backend (without padding and truncation), chat template."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is not None:
        state = json.loads(backend.to_str())
        state.pop("padding", None)
        state.pop("truncation", None)
    else:
        state = sorted(tokenizer.get_vocab().items())
    marks = {name: str(value) for name, value in sorted(tokenizer.special_tokens_map.items())}
    return digest(
        type(tokenizer).__name__,
        state,
        marks,
        getattr(tokenizer, "chat_template", None),
        bool(getattr(tokenizer, "split_special_tokens", False)),
    )


def template_version(template: Any) -> str:
    """Hash of what decides a template's text."""
    return digest(type(template).__name__, template.text if hasattr(template, "text") else repr(template))


def cache_file(key: str) -> Path:
    """Where the rows with this key are kept."""
    return env.home() / "tokenized" / f"{key}.npz"


def load(key: str) -> tuple[TokenizedRows, DatasetReport] | None:
    """The rows kept under a key; None where there are none, or where the file is damaged (said, and made anew)."""
    path = cache_file(key)
    if not path.is_file():
        return None
    try:
        with path.open("rb") as handle, np.load(handle, allow_pickle=False) as stored:
            arrays = {name: stored[name] for name in _ARRAYS}
            facts = json.loads(stored["facts"].tobytes().decode())
        rows = TokenizedRows(**arrays, files=tuple(facts["files"]))
        os.utime(path)
        return rows, _report_from(facts["report"])
    except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile) as error:
        logger.warning("the cache file %s is damaged (%s) and is made anew", path, error)
        return None


def _report_from(facts: dict[str, Any]) -> DatasetReport:
    rejects = [Reject(Source(**entry.pop("source")), **entry) for entry in facts.pop("rejects")]
    return DatasetReport(**facts, rejects=rejects)


def save(key: str, rows: TokenizedRows, report: DatasetReport) -> None:
    """Keeps rows under a key; a crash leaves no half file. A full or read-only disk costs the cache, not the run."""
    path = cache_file(key)
    facts = json.dumps({"files": rows.files, "report": asdict(report)})
    temporary = path.with_name(f".{key}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("wb") as handle:
            np.savez(
                handle,
                facts=np.frombuffer(facts.encode(), dtype=np.uint8),
                **{name: getattr(rows, name) for name in _ARRAYS},
            )
            handle.flush()
            os.fsync(handle.fileno())
        temporary.replace(path)
        _prune(path.parent)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        logger.warning("tokenized rows are not kept for the next run: %s", error)


def _prune(folder: Path) -> None:
    """Deletes what was not used for longest until the folder is under the limit; the newest file always stays."""
    kept = 0
    files = sorted(folder.glob("*.npz"), key=lambda path: path.stat().st_mtime, reverse=True)
    for index, path in enumerate(files):
        kept += path.stat().st_size
        if index and kept > LIMIT_BYTES:
            path.unlink(missing_ok=True)
