"""Entries put into a dataset_info.json that may hold others, by several processes, without losing one."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tunesmith.core import runs
from tunesmith.core.errors import DataError, Problem
from tunesmith.data.catalog import INFO_FILE, read_info


def file_name_from(folder: Path, file: Path) -> str:
    """How an entry in `folder` names a file: relative where it lies below, else in full."""
    try:
        return file.resolve().relative_to(folder.resolve()).as_posix()
    except ValueError:
        return str(file.resolve())


def check_free(folder: Path, names: Sequence[str], output: Path) -> None:
    """Refuses names that belong to other files, before anything is spent.

    Args:
        folder: of dataset_info.json.
        names: of the entries to come.
        output: where their files will be.

    Raises:
        DataError: a name is taken, or the file cannot be read.
    """
    if not (folder / INFO_FILE).is_file():
        return
    known = read_info(folder)
    problems = []
    for name in names:
        entry = known.get(name)
        given = entry.get("file_name") if isinstance(entry, dict) else None
        if entry is not None and (not given or (folder / str(given)).resolve().parent != output.resolve()):
            what = f"the entry {name!r} is there already and names {given or 'no file of ours'}"
            problems.append(Problem(what, str(folder / INFO_FILE), "set dataset_name to another name"))
    if problems:
        raise DataError(problems)


def merge(folder: Path, entries: Mapping[str, Any]) -> None:
    """Adds entries or replaces them; the others stay as and where they are.

    Raises:
        DataError: the file that is there is broken; it is not touched.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with _locked(folder):
        known = read_info(folder) if (folder / INFO_FILE).is_file() else {}
        runs.write_json(folder / INFO_FILE, {**known, **entries})


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """One process at a time; the folder itself is the lock, so no file is left behind."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
