"""Tokenized data sets on disk: a folder each, named by everything that its content depends on."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import Any

from tunesmith.core import env
from tunesmith.core.log import get_logger
from tunesmith.core.types import Source
from tunesmith.data.report import DatasetReport, Reject
from tunesmith.data.rows import TokenizedRows
from tunesmith.data.store import STATE, StoreWriter, open_rows

logger = get_logger(__name__)

LIMIT_BYTES = 8 << 30
_PARTIAL = ".part"


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
        names = ("normalizer", "pre_tokenizer", "model", "post_processor", "decoder")
        parts = [getattr(backend, name) for name in names]
        state: Any = [None if part is None else hashlib.sha256(part.__getstate__()).hexdigest() for part in parts]
        state += [(index, repr(token)) for index, token in sorted(backend.get_added_tokens_decoder().items())]
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


def cache_folder(key: str) -> Path:
    """Where the rows with this key are kept."""
    return env.home() / "tokenized" / key


def holds(key: str) -> bool:
    """Whether there is something under a key; `load` finds out whether it is whole."""
    return (cache_folder(key) / STATE).is_file()


def load(key: str) -> tuple[TokenizedRows, DatasetReport] | None:
    """The rows kept under a key; None where there are none, or where a file is damaged (said, and made anew)."""
    folder = cache_folder(key)
    if not holds(key):
        return None
    try:
        rows, facts = open_rows(folder)
        report = report_from(facts["report"])
        os.utime(folder)
    except (OSError, ValueError, KeyError, TypeError) as error:
        logger.warning("the cached rows in %s are damaged (%s) and are made anew", folder, error)
        return None
    return rows, report


def report_from(facts: dict[str, Any]) -> DatasetReport:
    """A report out of its JSON."""
    facts = dict(facts)
    rejects = [Reject(**{**entry, "source": Source(**entry["source"])}) for entry in facts.pop("rejects")]
    return DatasetReport(**facts, rejects=rejects)


@contextmanager
def locked(key: str) -> Iterator[None]:
    """Keeps other processes from making the same rows at the same time; they wait, and that is said."""
    path = cache_folder(key).with_suffix(".lock")
    path.parent.mkdir(parents=True, exist_ok=True)
    while True:
        with path.open("w") as handle:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                logger.info("another process tokenizes the same rows; waiting for it")
                fcntl.flock(handle, fcntl.LOCK_EX)
            if not _is_still(path, handle.fileno()):
                continue  # the one before us removed the file that we waited at
            try:
                yield
            finally:
                path.unlink(missing_ok=True)
            return


def _is_still(path: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(path.stat(), os.fstat(descriptor))
    except FileNotFoundError:
        return False


def begin(key: str, afresh: bool) -> tuple[StoreWriter, DatasetReport | None]:
    """A writer for a key, and the accounting of what an earlier process finished before it was stopped.

    Args:
        key: of the rows.
        afresh: drop what is there.
    """
    folder = cache_folder(key).with_suffix(_PARTIAL)
    if afresh:
        shutil.rmtree(folder, ignore_errors=True)
    try:
        writer = StoreWriter(folder)
        try:
            return writer, report_from(writer.facts["report"]) if writer.facts else None
        except (KeyError, TypeError):
            writer.close()
    except (ValueError, KeyError):
        pass
    shutil.rmtree(folder)
    return StoreWriter(folder), None


def keep_shard(writer: StoreWriter, report: DatasetReport) -> None:
    """Makes what was written so far last."""
    writer.commit({"report": asdict(report)})


def publish(key: str, writer: StoreWriter) -> None:
    """Puts finished rows where `load` finds them; rows that another process has open stay readable for it."""
    writer.close()
    folder = cache_folder(key)
    shutil.rmtree(folder, ignore_errors=True)
    folder.with_suffix(_PARTIAL).replace(folder)
    _prune(folder.parent)


def discard(key: str) -> None:
    """Removes what could not be finished."""
    shutil.rmtree(cache_folder(key).with_suffix(_PARTIAL), ignore_errors=True)


def _prune(parent: Path) -> None:
    """Deletes what was not used for longest until all is under the limit; the newest always stays."""
    kept = 0
    folders = sorted(
        (path for path in parent.iterdir() if path.is_dir()), key=lambda path: path.stat().st_mtime, reverse=True
    )
    for index, folder in enumerate(folders):
        kept += sum(path.stat().st_size for path in folder.iterdir())
        if index and kept > LIMIT_BYTES:
            shutil.rmtree(folder, ignore_errors=True)
    for path in parent.glob("*.npz"):
        path.unlink(missing_ok=True)  # what earlier versions kept
