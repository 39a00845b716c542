"""Rows of a data set by number, without holding them: counted in one cheap pass, read again when they are wanted."""

from __future__ import annotations

import os
import pickle
import tempfile
import weakref
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import IO, Any

import numpy as np

from tunesmith.core.errors import DataError, Problem
from tunesmith.core.types import Source
from tunesmith.data.catalog import DatasetSpec
from tunesmith.data.examples import without_weightless
from tunesmith.data.progress import progress
from tunesmith.data.report import DatasetReport
from tunesmith.data.sources import RawRow, data_files, decode_line, open_checked, parse_line, text_row

_PLACE = np.dtype([("file", "<i4"), ("length", "<i4"), ("start", "<i8"), ("number", "<i8")])


class RawRows(Sequence[RawRow]):
    """The rows of one data set in file order.

    JSON lines and text files are read where they are: 24 bytes a row are held. Rows of other types, and of sets with a
    weight column, are copied once into a file without a name, which the system removes with the process.

    Args:
        spec: the data set.
        report: counts rows of weight 0, which are passed over.
        limit: rows that are wanted at most, from the first on.
    """

    def __init__(self, spec: DatasetSpec, report: DatasetReport, limit: int | None = None) -> None:
        self._limit = limit
        self._handles: list[IO[bytes]] = []
        weakref.finalize(self, _close, self._handles)
        self._names: list[str] = []
        self._kinds: list[str] = []
        files = data_files(spec)
        places: list[Any] = []
        with progress(f"counting {spec.name}") as advance:
            if spec.columns.weight or not all(_is_lines(path) for path, _ in files):
                places.append(self._spool(spec, report, advance))
            else:
                places += [self._scan(path, name, advance) for path, name in files]
        self._places = np.concatenate(places)[:limit]
        if not len(self._places):
            raise DataError([Problem("the file holds no rows", str(spec.path), "put data in it")])

    def __len__(self) -> int:
        return len(self._places)

    def __getitem__(self, index: Any) -> Any:
        place = self._places[index]
        file, length = int(place["file"]), int(place["length"])
        # pread: loader processes that were forked share the file and its position
        raw = os.pread(self._handles[file].fileno(), length, int(place["start"]))
        if self._kinds[file] == "pickle":
            return pickle.loads(raw)
        parse = text_row if self._kinds[file] == ".txt" else parse_line
        return parse(Source(self._names[file], int(place["number"])), *decode_line(raw))

    def source(self, index: int) -> Source:
        """Where a row comes from."""
        place = self._places[index]
        file = int(place["file"])
        if self._kinds[file] == "pickle":
            found: Source = self[index].source
            return found
        return Source(self._names[file], int(place["number"]))

    def _scan(self, path: Path, name: str, advance: Any) -> Any:
        handle = open_checked(path)
        start, found = handle.tell(), []
        for number, raw in enumerate(handle, start=1):
            if raw.strip():
                found.append((len(self._handles), len(raw), start, number))
            start += len(raw)
            if number % 10_000 == 0:
                advance(10_000)
        self._add(handle, name, path.suffix.lower())
        return np.array(found, dtype=_PLACE)

    def _spool(self, spec: DatasetSpec, report: DatasetReport, advance: Any) -> Any:
        handle = tempfile.TemporaryFile(prefix="tunesmith-rows-")  # noqa: SIM115 - open as long as the rows are
        start, found = 0, []
        for row in islice(without_weightless(spec, report), self._limit):
            data = pickle.dumps(row, protocol=pickle.HIGHEST_PROTOCOL)
            handle.write(data)
            found.append((0, len(data), start, row.source.row))
            start += len(data)
            if len(found) % 10_000 == 0:
                advance(10_000)
        handle.flush()
        self._add(handle, spec.name, "pickle")
        return np.array(found, dtype=_PLACE)

    def _add(self, handle: IO[bytes], name: str, kind: str) -> None:
        self._handles.append(handle)
        self._names.append(name)
        self._kinds.append(kind)


def _close(handles: list[IO[bytes]]) -> None:
    for handle in handles:
        handle.close()


def _is_lines(path: Path) -> bool:
    """Whether each line of the file is a row."""
    return path.suffix.lower() in (".jsonl", ".txt")
