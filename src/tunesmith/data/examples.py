"""A data set as a stream of examples: rows selected, converted, and every one of them booked. No tokens here."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from itertools import islice
from typing import Any, cast

import numpy as np

from tunesmith.core.errors import DataError, Problem
from tunesmith.core.log import get_logger
from tunesmith.core.types import Conversation, Example, Feedback, Preference, Text
from tunesmith.data.catalog import Columns, DatasetSpec
from tunesmith.data.formats import RowError, convert, detect
from tunesmith.data.formats.fields import is_weight, is_weightless
from tunesmith.data.report import DatasetReport, Reject
from tunesmith.data.sources import RawRow, read_dataset, select_split, split_name

logger = get_logger(__name__)

_PLACEHOLDER = re.compile(r"\{\{(\w+)\}\}")
_LOOK_AHEAD = 20


def settle(spec: DatasetSpec) -> DatasetSpec:
    """Fills in what the entry leaves open, and says it: the layout of a file given by its path, a `weight` column.

    Raises:
        DataError: the layout is not known, or no row of the first ones could be read.
    """
    if spec.formatting != "auto":
        return _with_weight(spec)
    first = _first_rows(spec)
    if not first:
        raise DataError(
            [
                Problem(
                    f"none of the first {_LOOK_AHEAD} rows could be read",
                    str(spec.path),
                    "is it JSON, CSV or text as its name says?",
                )
            ]
        )
    settled, line = detect(spec, first)
    logger.info(line)
    return settled


def _first_rows(spec: DatasetSpec) -> list[dict[str, Any]]:
    return [row.value for row in islice(read_dataset(spec), _LOOK_AHEAD) if row.value is not None]


def _with_weight(spec: DatasetSpec) -> DatasetSpec:
    """An entry without a `columns` block weighs its rows by a column `weight` that holds numbers."""
    if spec.has_columns or spec.columns.weight:
        return spec
    found = [row["weight"] for row in _first_rows(spec) if row.get("weight") is not None]
    if not found or not all(is_weight(value) for value in found):
        return spec
    logger.info("dataset %s: rows count by their column 'weight'", spec.name)
    return replace(spec, columns=replace(spec.columns, weight="weight"))


def select_rows(spec: DatasetSpec, max_samples: int | None, seed: int, report: DatasetReport) -> Iterator[RawRow]:
    """The rows that take part: those of weight 0 are out, then `split`, `num_samples`, the first `max_samples`.

    Raises:
        DataError: the files cannot be read, or `split` is not understood or selects nothing.
    """
    stream = without_weightless(spec, report)
    if spec.split == "train" and spec.num_samples is None:
        yield from islice(stream, max_samples)
        return
    rows = list(stream)
    for place in select_places(spec, len(rows), seed)[:max_samples]:
        yield rows[place]


def select_places(spec: DatasetSpec, count: int, seed: int) -> list[int]:
    """The places that `split` and `num_samples` choose among `count` rows.

    Raises:
        DataError: `split` is not understood or selects nothing.
    """
    name = split_name(spec.split) if spec.remote is not None and spec.remote.is_hub else "train"
    try:
        places = [place for part in select_split(spec.split, count, name) for place in part]
    except ValueError as error:
        raise DataError([Problem(str(error), f"dataset {spec.name}")]) from error
    if not places:
        raise DataError([Problem(f"split {spec.split!r} selects none of {count} rows", f"dataset {spec.name}")])
    return places if spec.num_samples is None else draw(places, spec.num_samples, seed)


def without_weightless(spec: DatasetSpec, report: DatasetReport) -> Iterator[RawRow]:
    """All rows but those of weight 0, which are as if they were not in the file; they are counted."""
    report.left_out = 0
    column = spec.columns.weight
    for row in read_dataset(spec):
        if column and row.value is not None and is_weightless(row.value.get(column)):
            report.left_out += 1
            continue
        yield row


def draw(places: list[int], count: int, seed: int) -> list[int]:
    """Exactly `count` of `places`: a random permutation, topped up with replacement where there are too few."""
    generator = np.random.default_rng(seed)
    chosen = generator.permutation(len(places))[:count]
    if count > len(places):
        chosen = np.concatenate([chosen, generator.integers(len(places), size=count - len(places))])
    return [places[index] for index in chosen]


def read_examples(
    spec: DatasetSpec, stage: str, max_samples: int | None, seed: int, report: DatasetReport
) -> Iterator[Example]:
    """The usable rows as examples; every row that is read is booked in `report`, a rejected one with its reason.

    Rows that `report` has booked already are passed over.
    """
    passed = report.read
    for row in islice(select_rows(spec, max_samples, seed, report), passed, None):
        if not report.read and row.value is not None:
            say_unused(spec, row.value)
        example = book_example(row, spec, stage, report)
        if example is not None:
            yield example


def book_example(row: RawRow, spec: DatasetSpec, stage: str, report: DatasetReport) -> Example | None:
    """One row as an example, booked in `report`; None where it is rejected."""
    report.read += 1
    if row.value is None:
        report.reject(Reject(row.source, "", row.fault, "mend the line"))
        return None
    try:
        example = convert(row.value, spec, stage, row.source)
    except RowError as error:
        report.reject(Reject(row.source, error.column, error.reason, error.fix))
        return None
    for name in [name for text in texts(example) if "{{" in text for name in _PLACEHOLDER.findall(text)]:
        report.placeholders[name] = report.placeholders.get(name, 0) + 1
    return example


def read_conversations(
    spec: DatasetSpec, max_samples: int | None, seed: int, report: DatasetReport
) -> Iterator[Conversation]:
    """`read_examples` for stage sft."""
    return cast("Iterator[Conversation]", read_examples(spec, "sft", max_samples, seed, report))


def say_unused(spec: DatasetSpec, row: dict[str, object]) -> None:
    """Names columns of the first row that look as if they were meant to be used, and are not."""
    used = {getattr(spec.columns, name) for name in Columns.__dataclass_fields__}
    meant = [str(key) for key in row if key not in used and key in (*Columns.__dataclass_fields__, "input", "output")]
    if meant:
        logger.info(
            "dataset %s: columns that are not used, since `columns` does not name them: %s", spec.name, ", ".join(meant)
        )


def texts(example: Example) -> Iterator[str]:
    """All text of an example."""
    if isinstance(example, Text):
        yield example.text
    elif isinstance(example, Conversation):
        yield from (message.content for message in example.messages)
    elif isinstance(example, Feedback):
        yield from texts(example.conversation)
    elif isinstance(example, Preference):
        yield from texts(example.prompt)
        yield example.chosen.content
        yield example.rejected.content


def without_trailing(conversation: Conversation) -> Conversation:
    """The conversation up to its last answer; tool results after it have nobody to learn from."""
    messages = conversation.messages
    stop = len(messages)
    while stop and messages[stop - 1].role != "assistant":
        stop -= 1
    return conversation if stop == len(messages) else replace(conversation, messages=messages[:stop])
