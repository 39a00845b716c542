"""Files -> raw rows, each with its file and row number. Knows file types; knows nothing of what a row means."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any

from tunesmith.core.errors import DataError, Problem
from tunesmith.core.types import Source
from tunesmith.data.catalog import SUFFIXES, DatasetSpec
from tunesmith.data.json_stream import JsonArrayReader

_UTF16_MARKS = (b"\xff\xfe", b"\xfe\xff")
_BOM = b"\xef\xbb\xbf"
_SLICE = re.compile(r"^(?P<name>\w+)(?:\[(?P<start>-?\d+%?)?:(?P<stop>-?\d+%?)?\])?$")


@dataclass(frozen=True, slots=True)
class RawRow:
    """One row of a file, or what stood in its place.

    Attributes:
        source: file and row number.
        value: the row's columns; None when it could not be read.
        fault: why there is no value.
    """

    source: Source
    value: dict[str, Any] | None
    fault: str = ""


def list_files(path: Path) -> list[Path]:
    """The data files behind a path: itself, or a folder's files in sorted order, hidden ones left out.

    Raises:
        DataError: no such file, an empty folder, more than one file type, or a type that is not known.
    """
    if path.is_dir():
        files = sorted(file for file in path.iterdir() if file.is_file() and not file.name.startswith("."))
        if not files:
            raise DataError([Problem("the folder holds no data files", str(path))])
        kinds = sorted({file.suffix.lower() for file in files})
        if len(kinds) > 1:
            raise DataError(
                [Problem(f"the folder mixes file types: {', '.join(kinds)}", str(path), "keep files of one type in it")]
            )
    elif path.exists():
        files = [path]
    else:
        raise DataError([Problem("no such file", str(path))])
    if files[0].suffix.lower() not in SUFFIXES:
        raise DataError(
            [
                Problem(
                    f"file type {files[0].suffix or '(none)'} is not known",
                    str(files[0]),
                    f"one of: {', '.join(SUFFIXES)}",
                )
            ]
        )
    return files


def data_files(spec: DatasetSpec) -> list[tuple[Path, str]]:
    """The files of a data set, each with the name that messages call it by."""
    return list(spec.files) or [(path, str(path)) for path in list_files(spec.path)]


def read_dataset(spec: DatasetSpec) -> Iterator[RawRow]:
    """All rows of a data set; parts of one split of a hub are numbered as one file.

    Raises:
        DataError: see `read_rows`.
    """
    if not spec.files:
        yield from read_rows(spec.path)
        return
    base, name_before = 0, ""
    for path, name in spec.files:
        base = base if name == name_before else 0
        last = base
        for row in read_rows(path):
            last = base + row.source.row
            yield replace(row, source=Source(name, last))
        base, name_before = last, name


def read_rows(path: Path) -> Iterator[RawRow]:
    """All rows of a file or folder, one at a time.

    Raises:
        DataError: a file that is empty, not UTF-8 as a whole, or whose JSON is broken as a whole.
    """
    for file in list_files(path):
        count = 0
        for row in _reader(file)(file):
            count += 1
            yield row
        if count == 0:
            raise DataError(
                [Problem("the file holds no rows", str(file), "put data in it, or take it out of `dataset`")]
            )


def _reader(file: Path) -> Callable[[Path], Iterator[RawRow]]:
    readers: dict[str, Callable[[Path], Iterator[RawRow]]] = {
        ".json": _read_json,
        ".jsonl": _read_jsonl,
        ".csv": _read_csv,
        ".parquet": _read_parquet,
        ".arrow": _read_arrow,
        ".txt": _read_txt,
    }
    return readers[file.suffix.lower()]


def _object_row(source: Source, value: Any) -> RawRow:
    if isinstance(value, dict):
        return RawRow(source, value)
    return RawRow(source, None, f"a row must be an object with columns, not {_json_name(value)}")


def _json_name(value: Any) -> str:
    names = {list: "a list", str: "text", bool: "true/false", int: "a number", float: "a number", type(None): "null"}
    return names.get(type(value), type(value).__name__)


def open_checked(file: Path) -> IO[bytes]:
    """Opens a text file in binary, past a BOM."""
    handle = file.open("rb")
    head = handle.read(3)
    if head[:2] in _UTF16_MARKS:
        handle.close()
        raise DataError([Problem("the file is UTF-16, not UTF-8", str(file), "save it as UTF-8")])
    handle.seek(3 if head == _BOM else 0)
    return handle


def _lines(file: Path) -> Iterator[tuple[Source, str | None, str]]:
    """Source, text and fault of every line that is not blank; the line ending is taken off."""
    with open_checked(file) as handle:
        for number, raw in enumerate(handle, start=1):
            text, fault = decode_line(raw)
            if text is None or text.strip():
                yield Source(str(file), number), text, fault


def decode_line(raw: bytes) -> tuple[str | None, str]:
    """The text of a line without its ending; or None and why there is none."""
    try:
        return raw.decode("utf-8").rstrip("\r\n"), ""
    except UnicodeDecodeError as error:
        return None, f"not UTF-8: {error.reason} at byte {error.start} of the line"


def _read_jsonl(file: Path) -> Iterator[RawRow]:
    for source, text, fault in _lines(file):
        yield parse_line(source, text, fault)


def parse_line(source: Source, text: str | None, fault: str = "") -> RawRow:
    """One line of JSON lines; `fault` says why there is no text."""
    if text is None:
        return RawRow(source, None, fault)
    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        near = excerpt(text, error.pos)
        return RawRow(source, None, f"broken JSON: {error.msg} at column {error.colno}, near {near!r}")
    except RecursionError:
        return RawRow(source, None, "the JSON is nested too deep")
    return _object_row(source, value)


def excerpt(text: str, position: int, width: int = 30) -> str:
    """The text around a position."""
    return text[max(position - width, 0) : position + width]


def _read_json(file: Path) -> Iterator[RawRow]:
    """A list of rows; a file of JSON lines that is called .json is read as such."""
    with open_checked(file) as handle:
        start = handle.tell()
        first = handle.read(1 << 16).lstrip()[:1]
    if first == b"[":
        with open_checked(file) as handle:
            handle.seek(start)
            for number, value in enumerate(JsonArrayReader(handle, file), start=1):
                yield _object_row(Source(str(file), number), value)
    elif first == b"{":
        yield from _read_object_file(file)
    elif first:
        raise DataError(
            [
                Problem(
                    "neither a list of rows nor JSON lines",
                    f"{file}:1",
                    'the file begins with [ and holds rows such as {"instruction": "...", "output": "..."}',
                )
            ]
        )


def _read_object_file(file: Path) -> Iterator[RawRow]:
    """JSON lines under the name .json; one object over many lines is told apart from them."""
    lines = _lines(file)
    _, first, _ = next(lines)
    try:
        json.loads(first or "")
    except json.JSONDecodeError as error:
        raise _single_object_error(file, error) from error
    yield from _read_jsonl(file)


def _single_object_error(file: Path, line_error: json.JSONDecodeError) -> DataError:
    try:
        value = json.loads(file.read_text(encoding="utf-8-sig"))
    except (ValueError, RecursionError) as error:
        line, column, message = (
            getattr(error, "lineno", 1),
            getattr(error, "colno", line_error.colno),
            getattr(error, "msg", str(error)),
        )
        fix = "a .json file holds one list of rows: [{...}, {...}]; or one row a line"
        return DataError([Problem(f"broken JSON: {message} at column {column}", f"{file}:{line}", fix)])
    inner = (
        next((key for key, part in value.items() if isinstance(part, list)), None) if isinstance(value, dict) else None
    )
    hint = f"; its key {inner!r} holds a list: keep that list alone" if inner else ""
    return DataError(
        [
            Problem(
                "the file holds one object where a list of rows is expected",
                f"{file}:1",
                f"write [{{...}}, {{...}}]{hint}",
            )
        ]
    )


def _read_txt(file: Path) -> Iterator[RawRow]:
    for source, text, fault in _lines(file):
        yield text_row(source, text, fault)


def text_row(source: Source, text: str | None, fault: str = "") -> RawRow:
    """One line of plain text."""
    if text is None or "\x00" in text:
        return RawRow(source, None, fault or "the line holds a NUL byte")
    return RawRow(source, {"text": text})


def _read_csv(file: Path) -> Iterator[RawRow]:
    csv.field_size_limit(1 << 30)
    open_checked(file).close()
    try:
        with file.open(encoding="utf-8-sig", newline="") as handle:
            yield from _csv_rows(file, csv.reader(handle, strict=True))
    except UnicodeDecodeError as error:
        raise DataError([Problem(f"not UTF-8 text ({error.reason})", str(file), "save it as UTF-8")]) from error


def _csv_rows(file: Path, reader: Any) -> Iterator[RawRow]:
    header = next((cells for cells in reader if any(cells)), None)
    if header is None:
        return
    if len(set(header)) < len(header):
        what = f"the header names a column twice: {', '.join(header)}"
        raise DataError([Problem(what, f"{file}:1", "rename one of them")])
    while True:
        source = Source(str(file), reader.line_num + 1)
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            yield RawRow(source, None, f"broken CSV: {error}")
            continue
        if not cells:
            continue
        if len(cells) != len(header):
            yield RawRow(
                source,
                None,
                f"the row has {len(cells)} cells, the header {len(header)}: is a text with commas not in quotes?",
            )
        else:
            yield RawRow(source, dict(zip(header, cells, strict=True)))


def _read_parquet(file: Path) -> Iterator[RawRow]:
    import pyarrow
    import pyarrow.parquet

    try:
        batches = pyarrow.parquet.ParquetFile(file).iter_batches(batch_size=1000)
        yield from _table_rows(file, batches)
    except pyarrow.ArrowException as error:
        raise DataError([Problem(f"not a readable parquet file: {error}", str(file))]) from error


def _read_arrow(file: Path) -> Iterator[RawRow]:
    """Both layouts of Arrow IPC: file and stream (what `datasets` writes)."""
    import pyarrow
    import pyarrow.ipc

    try:
        with pyarrow.memory_map(str(file)) as handle:
            if file.stat().st_size >= 6 and handle.read(6) == b"ARROW1":
                reader = pyarrow.ipc.open_file(handle)
                batches: Iterator[Any] = (reader.get_batch(index) for index in range(reader.num_record_batches))
            else:
                handle.seek(0)
                batches = iter(pyarrow.ipc.open_stream(handle))
            yield from _table_rows(file, batches)
    except pyarrow.ArrowException as error:
        raise DataError([Problem(f"not a readable arrow file: {error}", str(file))]) from error


def _table_rows(file: Path, batches: Iterator[Any]) -> Iterator[RawRow]:
    number = 0
    for batch in batches:
        for value in batch.to_pylist():
            number += 1
            yield RawRow(Source(str(file), number), value)


def split_name(split: str) -> str:
    """The one split that an expression takes rows from, such as `test` of `test[:100]`.

    Raises:
        ValueError: it is not understood, or takes rows from several.
    """
    matches = [_SLICE.match(part) for part in split.replace(" ", "").split("+")]
    names = {match["name"] for match in matches if match}
    if None in matches or len(names) != 1:
        raise ValueError(f"split {split!r} is not understood; write train, train[:100], or parts of one split with +")
    return names.pop()


def select_split(split: str, count: int, name: str = "train") -> list[range]:
    """The rows that a split expression means, such as `train`, `train[:2]`, `train[10%:20%]`, `train[:5]+train[-5:]`.

    Args:
        split: the expression.
        count: rows there are.
        name: of the split that the rows are.

    Raises:
        ValueError: not an expression of that kind, or another split than `name`; local files have train only.
    """
    ranges = []
    for part in split.replace(" ", "").split("+"):
        match = _SLICE.match(part)
        if match is None:
            raise ValueError(f"split {split!r} is not understood; write train, train[:100] or train[10%:20%]")
        if match["name"] != name:
            raise ValueError(f"split {split!r}: a local file has the split train only")
        start, stop = _bound(match["start"], count, 0), _bound(match["stop"], count, count)
        ranges.append(range(*slice(start, stop).indices(count)))
    return ranges


def _bound(text: str | None, count: int, default: int) -> int:
    if text is None:
        return default
    return round(int(text[:-1]) * count / 100) if text.endswith("%") else int(text)
