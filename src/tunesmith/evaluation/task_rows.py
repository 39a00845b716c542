"""Rows of a user's own task: questions with choices, or prompts with references. Faults have file, row, column."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from tunesmith.core.errors import DataError, Problem
from tunesmith.core.types import Source
from tunesmith.data.sources import read_rows
from tunesmith.evaluation.question import CATEGORIES, LETTERS, Question, Subject
from tunesmith.evaluation.task_file import TaskFile

SHOWN_PROBLEMS = 10
_SLOT = re.compile(r"\{(\w[^{}]*)\}")
_Made = TypeVar("_Made")
Row = Mapping[str, Any]


class _ColumnError(ValueError):
    """A row that cannot be used, and the column where that shows."""

    def __init__(self, column: str, what: str) -> None:
        super().__init__(what)
        self.column = column


@dataclass(frozen=True, slots=True)
class PromptItem:
    """A prompt to answer.

    Attributes:
        prompt: what is asked.
        references: answers that are right, at least one.
        source: file and row.
    """

    prompt: str
    references: tuple[str, ...]
    source: Source


def read_subjects(task: TaskFile) -> list[Subject]:
    """The questions of a multiple-choice task, by subject in the order they come; without that column there is one.

    Raises:
        DataError: rows that cannot be used, each with file, row and column.
    """
    asked = _made(task.file, lambda row, _: _question(task, row))
    shown = _made(task.examples, lambda row, _: _question(task, row)) if task.examples else []
    found: dict[str, list[tuple[Question, str]]] = {}
    for question, subject, category in asked:
        found.setdefault(subject, []).append((question, category))
    own = {subject for _, subject, _ in shown} & set(found)
    return [
        Subject(
            name=subject,
            title=task.title if subject == task.name else subject.replace("_", " "),
            category=questions[0][1],
            examples=tuple(question for question, other, _ in shown if subject not in own or other == subject),
            questions=tuple(question for question, _ in questions),
        )
        for subject, questions in found.items()
    ]


def read_prompts(task: TaskFile) -> tuple[list[PromptItem], list[PromptItem]]:
    """The prompts of a generation task, and those that worked examples are drawn from.

    Raises:
        DataError: rows that cannot be used, each with file, row and column.
    """

    def make(row: Row, source: Source) -> PromptItem:
        return PromptItem(_prompt(task, row), _references(task, row), source)

    return _made(task.file, make), _made(task.examples, make) if task.examples else []


def _made(file: Path, make: Callable[[Row, Source], _Made]) -> list[_Made]:
    made: list[_Made] = []
    problems: list[Problem] = []
    for row in read_rows(file):
        try:
            if row.value is None:
                raise _ColumnError("", row.fault)
            made.append(make(row.value, row.source))
        except _ColumnError as error:
            where = f"{row.source}, column {error.column}" if error.column else str(row.source)
            problems.append(Problem(str(error), where))
    if problems:
        more = len(problems) - SHOWN_PROBLEMS
        rest = [Problem(f"{more} more rows cannot be used", str(file))] if more > 0 else []
        raise DataError([*problems[:SHOWN_PROBLEMS], *rest])
    return made


def _text(row: Row, column: str, *, needed: bool = True) -> str:
    """A cell as text; empty where it is not needed and not there."""
    if column not in row:
        if not needed:
            return ""
        raise _ColumnError(column, f"there is no such column; the row has {', '.join(map(str, row))}")
    value = row[column]
    if value is None or isinstance(value, list | dict):
        raise _ColumnError(column, f"takes text, not {json.dumps(value, ensure_ascii=False)[:60]}")
    text = str(value).strip()
    if needed and not text:
        raise _ColumnError(column, "the cell is empty")
    return text


# -- multiple choice


def _question(task: TaskFile, row: Row) -> tuple[Question, str, str]:
    """A question, its subject and its category."""
    names = task.columns
    text = _text(row, names.get("question", "question"))
    choices = tuple(_choices(row, names.get("choices", "choices")))
    where = names.get("answer", "answer")
    given = row.get(where)
    answer = None if given is None or given == "" else _answer(where, _text(row, where), choices)
    subject = _text(row, names.get("subject", "subject"), needed="subject" in names)
    category = _text(row, names.get("category", "category"), needed="category" in names)
    return Question(text, choices, answer), subject or task.name, category or CATEGORIES[-1]


def _choices(row: Row, columns: str | Sequence[str]) -> Iterator[str]:
    """From several columns, a list, or text with | between; without the usual column from the columns A, B, ..."""
    if columns == "choices" and columns not in row:
        lower = {str(name).strip().lower(): str(name) for name in row}
        found: list[str] = []
        for letter in LETTERS.lower():
            if letter not in lower:
                break
            found.append(lower[letter])
        if len(found) < 2:
            there = ", ".join(map(str, row))
            raise _ColumnError("choices", f"there is no such column, nor columns A, B, ...; the row has {there}")
        columns = found
    if not isinstance(columns, str):
        yield from (_text(row, str(column)) for column in columns)
        return
    if columns not in row:
        _text(row, columns)
    cell = row[columns]
    parts = cell if isinstance(cell, list) else str(cell or "").split("|")
    texts = ["" if part is None else str(part).strip() for part in parts]
    if not 2 <= len(texts) <= len(LETTERS) or not all(texts):
        raise _ColumnError(
            columns, f"two to {len(LETTERS)} choices are needed, a list or text with | between: {cell!r}"
        )
    yield from texts


def _answer(column: str, given: str, choices: tuple[str, ...]) -> int:
    """The right choice, named by its text or by its letter."""
    meant = {index for index, choice in enumerate(choices) if choice == given}
    letter = LETTERS.find(given.upper()) if len(given) == 1 else -1
    if 0 <= letter < len(choices):
        meant.add(letter)
    if len(meant) != 1:
        what = "may mean several choices" if meant else "is neither a choice nor its letter"
        raise _ColumnError(column, f"{given!r} {what}: {', '.join(map(repr, choices))}")
    return meant.pop()


# -- generation


def _prompt(task: TaskFile, row: Row) -> str:
    if not task.prompt:
        return _text(row, task.columns.get("prompt", "prompt"))
    return _SLOT.sub(lambda slot: _text(row, slot[1]), task.prompt)


def _references(task: TaskFile, row: Row) -> tuple[str, ...]:
    column = task.columns.get("references", "references")
    if column == "references" and column not in row and "reference" in row:
        column = "reference"
    cell = row.get(column)
    if not isinstance(cell, list):
        return (_text(row, column),)
    if not cell or not all(isinstance(part, str) and part.strip() for part in cell):
        raise _ColumnError(column, f"takes text or a list of texts, not {json.dumps(cell, ensure_ascii=False)[:60]}")
    return tuple(part.strip() for part in cell)
