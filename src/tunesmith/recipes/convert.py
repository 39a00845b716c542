"""`tunesmith data convert`: a data set in another layout, every row accounted for, nothing lost on the way."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from tunesmith.core.errors import DataError, Problem

if TYPE_CHECKING:
    from tunesmith.config.schema import RunConfig
    from tunesmith.data.catalog import DatasetSpec
    from tunesmith.data.report import DatasetReport
    from tunesmith.data.sources import RawRow

_OUTPUTS = (".json", ".jsonl")
_RESERVED = frozenset(
    {
        *("instruction", "input", "output", "response", "history", "system", "tools", "prompt", "completion", "text"),
        *("messages", "conversations", "conversation", "chosen", "rejected", "label", "kto_tag"),
        *("images", "videos", "audios"),
    }
)
"""Columns that a layout reads; one that the input does not use must not begin to mean something in the output."""


def convert_file(config: RunConfig, output: str, layout: str, *, overwrite: bool = False) -> str:
    """Writes the rows of the one data set in `config` as `layout`.

    Args:
        config: for the command `data`; `dataset` is the input.
        output: a .json or .jsonl file.
        layout: alpaca, sharegpt or openai.
        overwrite: an existing file is replaced.

    Returns:
        The accounting and the entry for dataset_info.json, for the user.

    Raises:
        DataError: the input cannot be read, the output is in the way, or rows would lose something (unless
            `skip_bad_rows`); nothing is written then.
    """
    from tunesmith.data.catalog import resolve
    from tunesmith.data.examples import select_rows, settle
    from tunesmith.data.report import DatasetReport, raise_rejects

    path = _output_path(output, overwrite=overwrite)
    (spec,) = (settle(spec) for spec in resolve(config.dataset[:1], config.dataset_dir))
    stage = _stage_of(spec)
    report = DatasetReport(spec.name, path=str(spec.path))
    used: set[str] = set()
    with _staged(path) as handle:
        separator = "[\n"
        for row in select_rows(spec, config.max_samples, config.seed, report):
            written = _converted(row, spec, stage, layout, report)
            if written is None:
                continue
            used |= written.keys()
            text = json.dumps(written, ensure_ascii=False)
            handle.write(f"{text}\n" if path.suffix == ".jsonl" else f"{separator}{text}")
            separator = ",\n"
        if path.suffix != ".jsonl":
            handle.write("\n]\n")
        if not config.skip_bad_rows:
            raise_rejects([report])
        if not report.kept:
            raise DataError([Problem("no row is left to write", str(spec.path), "every row was rejected")])
    return "\n".join([report.accounting(), f"written to {path} as {layout}", _entry_text(path, layout, used, stage)])


def _output_path(output: str, *, overwrite: bool) -> Path:
    path = Path(output).expanduser()
    if path.suffix.lower() not in _OUTPUTS:
        raise DataError(
            [Problem(f"a {path.suffix or 'nameless'} file is not written", output, "name a .json or .jsonl file")]
        )
    if path.exists() and not overwrite:
        raise DataError([Problem("the file exists", output, "choose another name, or add overwrite=true")])
    return path


def _stage_of(spec: DatasetSpec) -> str:
    """The stage that reads all that the data set holds."""
    from tunesmith.data.formats import stage_problems

    if spec.formatting == "text":
        what = "the data set holds plain texts: there are no messages to lay out"
        raise DataError([Problem(what, str(spec.path), "stage pt reads it as it is")])
    stage = "dpo" if spec.ranking else "kto" if spec.columns.kto_tag else "sft"
    if problems := stage_problems(spec, stage):
        raise DataError(problems)
    return stage


def _converted(row: RawRow, spec: DatasetSpec, stage: str, layout: str, report: DatasetReport) -> dict[str, Any] | None:
    """The row in the new layout; None where it was booked as rejected."""
    from tunesmith.data.formats import RowError, convert
    from tunesmith.data.formats.write import checked_row, write_row
    from tunesmith.data.report import Reject

    report.read += 1
    if row.value is None:
        report.reject(Reject(row.source, "", row.fault, "mend the line"))
        return None
    try:
        example = convert(row.value, spec, stage, row.source)
        _refuse_unread(row.value, spec)
        target = _spec_of(Path(row.source.file), layout, set(write_row(example, layout)), ranking=spec.ranking)
        written = checked_row(example, layout, target, stage)
        extra = _extra_columns(row.value, spec)
    except RowError as error:
        report.reject(Reject(row.source, error.column, error.reason, error.fix or "change the row"))
        return None
    report.kept += 1
    return {**written, **extra}


def _spec_of(path: Path, layout: str, used: set[str], *, ranking: bool) -> DatasetSpec:
    from tunesmith.data.catalog import DatasetSpec
    from tunesmith.data.formats.write import layout_columns, layout_tags

    columns = layout_columns(layout, used)
    return DatasetSpec(path.name, path, layout, ranking, columns=columns, tags=layout_tags(layout), has_columns=True)


def _columns_read(row: dict[str, Any], spec: DatasetSpec) -> set[str]:
    from tunesmith.data.formats.convert import messages_column

    if spec.formatting in ("sharegpt", "openai"):
        names: list[str | None] = [messages_column(row, spec)]
    else:
        names = [spec.columns.prompt, spec.columns.query, spec.columns.history]
        names += [] if spec.ranking else [spec.columns.response]
    names += [spec.columns.system, spec.columns.tools, spec.columns.chosen, spec.columns.rejected, spec.columns.kto_tag]
    return {name for name in names if name}


def _extra_columns(row: dict[str, Any], spec: DatasetSpec) -> dict[str, Any]:
    """Columns of the user's own, such as an id; they stay as they are."""
    from tunesmith.data.formats import RowError

    read = _columns_read(row, spec)
    extra = {name: value for name, value in row.items() if name not in read}
    for name, value in extra.items():
        if name in _RESERVED and value not in (None, "", []):
            raise RowError(
                "the column is not used now and would be read in the new layout",
                name,
                "name it under columns, rename it, or take it out",
            )
    return {name: value for name, value in extra.items() if name not in _RESERVED}


def _refuse_unread(row: dict[str, Any], spec: DatasetSpec) -> None:
    """Keys of messages that no reader takes up, and results that are not in the order of their calls."""
    from tunesmith.data.formats import RowError
    from tunesmith.data.formats.convert import messages_column
    from tunesmith.data.formats.fields import json_list

    if spec.formatting not in ("sharegpt", "openai"):
        return
    column = messages_column(row, spec)
    known = {spec.tags.role_tag, spec.tags.content_tag, "tool_calls", "function_call", "reasoning_content"}
    known |= {"weight", "train", "tool_call_id"}
    waiting: list[Any] = []
    for index, message in enumerate(json_list(row, column)):
        for name, value in message.items():
            if name not in known and value is not None:
                raise RowError(
                    f"the key {name!r} of a message would be lost", f"{column}[{index}].{name}", "take it out"
                )
        if message.get("tool_calls"):
            waiting = [call.get("id") for call in message["tool_calls"] if isinstance(call, dict)]
        named = message.get("tool_call_id")
        if named is not None and (not waiting or waiting.pop(0) != named):
            where = f"{column}[{index}].tool_call_id"
            raise RowError("the results are not in the order of their calls", where, "put them into that order")


def _entry_text(path: Path, layout: str, used: set[str], stage: str) -> str:
    """The entry that the file needs in dataset_info.json."""
    from tunesmith.data.formats.write import layout_columns, layout_tags

    entry: dict[str, Any] = {"file_name": path.name, "formatting": layout}
    if stage == "dpo":
        entry["ranking"] = True
    entry["columns"] = {name: column for name, column in asdict(layout_columns(layout, used)).items() if column}
    if layout == "openai":
        entry["tags"] = asdict(layout_tags(layout))
    name = path.stem.replace(" ", "_")
    return f"for dataset_info.json:\n{json.dumps({name: entry}, indent=2, ensure_ascii=False)}"


@contextmanager
def _staged(path: Path) -> Iterator[TextIO]:
    """A file that takes its name only when all of it is written."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("w", encoding="utf-8") as handle:
            yield handle
            handle.flush()
            os.fsync(handle.fileno())
        temporary.replace(path)
    except OSError as error:
        raise DataError([Problem(f"cannot convert: {error}", str(path), "name another place")]) from error
    finally:
        temporary.unlink(missing_ok=True)
