"""Tokenized rows in a folder of flat files, written shard by shard and read through memory maps.

What counts is `state.json`: it is replaced after each shard, so a writer that is killed loses the shard it was at.
"""

from __future__ import annotations

import json
import mmap
import os
import zlib
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np

from tunesmith.core.runs import write_atomic
from tunesmith.data.rows import ROW, TokenizedRows, TokenStore

STATE = "state.json"
FILES = ("ids", "trained", "odd", "rows")
_TYPES: dict[str, Any] = {"ids": np.int32, "trained": np.bool_, "odd": np.int64, "rows": ROW}
_LAYOUT: list[str] = list(ROW.names or ())
_CHUNK = 1 << 20
IN_MEMORY_BYTES = 1 << 24
"""Token ids up to this size are read into memory; more are mapped."""


class StoreWriter:
    """Appends rows to a folder; goes on behind what an earlier writer finished there.

    Attributes:
        facts: what the caller gave with the last finished shard; empty at the beginning.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        state = _read_state(folder) if (folder / STATE).is_file() else {}
        self.facts: dict[str, Any] = state.get("facts", {})
        self._sizes: dict[str, int] = state.get("sizes", dict.fromkeys(FILES, 0))
        self._sums: dict[str, int] = state.get("sums", dict.fromkeys(FILES, 0))
        self._names: list[str] = state.get("files", [])
        self._open = ExitStack()
        self._handles = {}
        for name in FILES:
            handle = self._open.enter_context((folder / f"{name}.bin").open("ab"))
            if handle.tell() < self._sizes[name]:
                self._open.close()
                raise ValueError(f"{name}.bin is shorter than {STATE} says")
            handle.truncate(self._sizes[name])
            self._handles[name] = handle

    def add(self, part: TokenizedRows) -> None:
        """Appends rows that were just packed; they count once `commit` returns."""
        store, table = part.stores[0], part.table.copy()
        base = self._sizes["ids"] // 4
        table["start"] += base
        if len(table):
            places = [self._place(name) for name in part.files]
            table["file"] = np.array(places, dtype=np.int32)[part.table["file"]]
        parts = {"ids": store.ids, "trained": store.trained, "odd": store.odd + np.array([base, 0]), "rows": table}
        for name, array in parts.items():
            data = np.ascontiguousarray(array, dtype=_TYPES[name]).tobytes()
            self._handles[name].write(data)
            self._sizes[name] += len(data)
            self._sums[name] = zlib.crc32(data, self._sums[name])

    def _place(self, name: str) -> int:
        if name not in self._names:
            self._names.append(name)
        return self._names.index(name)

    def commit(self, facts: dict[str, Any]) -> None:
        """Makes everything added so far last, with the caller's facts.

        Raises:
            OSError: it could not be written.
        """
        for handle in self._handles.values():
            handle.flush()
            os.fsync(handle.fileno())
        self.facts = facts
        sizes = {"sizes": self._sizes, "sums": self._sums, "files": self._names}
        state = {"facts": facts, "table": _LAYOUT, **sizes}
        write_atomic(self._folder / STATE, json.dumps(state))

    def close(self) -> None:
        """Closes the files; what was not committed is dropped by the next writer."""
        self._open.close()


def _read_state(folder: Path) -> dict[str, Any]:
    state: dict[str, Any] = json.loads((folder / STATE).read_text(encoding="utf-8"))
    if state.get("table") != _LAYOUT:
        raise ValueError("another version of tunesmith wrote it")
    return state


def write_rows(folder: Path, rows: TokenizedRows, facts: dict[str, Any], step: int = 4096) -> None:
    """Writes rows of any origin into a new folder, a few at a time."""
    from tunesmith.data.flat import pack_arrays

    writer = StoreWriter(folder)
    try:
        for start in range(0, len(rows), step):
            writer.add(pack_arrays(rows[start : start + step]))
        writer.commit(facts)
    finally:
        writer.close()


def open_rows(folder: Path) -> tuple[TokenizedRows, dict[str, Any]]:
    """The rows of a finished folder, mapped where they are many, and the facts beside them.

    Raises:
        OSError: a file is missing.
        ValueError: a file's content is not what was written.
        KeyError: `state.json` is not a writer's.
    """
    state = _read_state(folder)
    arrays: dict[str, Any] = {}
    mapped = []
    for name in FILES:
        path = folder / f"{name}.bin"
        _check(path, state["sizes"][name], state["sums"][name])
        if name in ("ids", "trained") and state["sizes"]["ids"] > IN_MEMORY_BYTES:
            with path.open("rb") as handle:
                area = mmap.mmap(handle.fileno(), 0, access=mmap.ACCESS_READ)
            mapped.append(area)
            arrays[name] = np.frombuffer(area, dtype=_TYPES[name])
        else:
            arrays[name] = np.fromfile(path, dtype=_TYPES[name])
    store = TokenStore(arrays["ids"], arrays["trained"], arrays["odd"].reshape(-1, 2), mapped)
    return TokenizedRows((store,), arrays["rows"], tuple(state["files"])), state["facts"]


def _check(path: Path, size: int, total: int) -> None:
    """Holds a file against its checksum, a piece at a time."""
    found, length = 0, 0
    with path.open("rb") as handle:
        while piece := handle.read(_CHUNK):
            found = zlib.crc32(piece, found)
            length += len(piece)
    if (length, found) != (size, total):
        raise ValueError(f"{path.name} is damaged ({length} bytes, {size} expected)")
