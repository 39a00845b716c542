"""Files of a finished data set: parquet, json, jsonl, the failures; each is written whole or not at all."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tunesmith.core import runs
from tunesmith.synthesis.rows import Failure

FAILURES = "failures.jsonl"
_COLUMNS = {"prompt": "instruction", "query": "input", "response": "output"}
_PAIR_COLUMNS = {"prompt": "instruction", "query": "input", "chosen": "chosen", "rejected": "rejected"}


def write_json_rows(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """A JSON list, one row a line."""
    lines = ",\n".join(json.dumps(row, ensure_ascii=False) for row in rows)
    runs.write_atomic(path, f"[\n{lines}\n]\n")


def write_lines(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """JSON lines."""
    runs.write_atomic(path, "".join(f"{json.dumps(row, ensure_ascii=False)}\n" for row in rows))


def write_failures(folder: Path, failures: Sequence[Failure]) -> None:
    """Everything that was asked for and did not become a row."""
    write_lines(folder / FAILURES, [failure.as_dict() for failure in failures])


def write_parquet(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """A parquet file that `datasets` and the hub read; a column that some rows lack is null in them."""
    import pyarrow
    from pyarrow import parquet

    pairs = pyarrow.list_(pyarrow.list_(pyarrow.string()))
    kinds = {"start": pyarrow.int64(), "end": pyarrow.int64(), "history": pairs}
    names = list(dict.fromkeys(name for row in rows for name in row))
    schema = pyarrow.schema([(name, kinds.get(name, pyarrow.string())) for name in names])
    table = pyarrow.Table.from_pylist([dict(row) for row in rows], schema=schema)
    buffer = io.BytesIO()
    parquet.write_table(table, buffer)
    runs.write_atomic(path, buffer.getvalue())


def entry_for(file_name: str, rows: Sequence[Mapping[str, Any]], *, ranking: bool = False) -> dict[str, Any]:
    """The entry of a file in dataset_info.json."""
    columns = dict(_PAIR_COLUMNS if ranking else _COLUMNS)
    columns |= {name: name for name in ("system", "history") if any(name in row for row in rows)}
    entry: dict[str, Any] = {"file_name": file_name}
    if ranking:
        entry["ranking"] = True
    return entry | {"columns": columns}
