"""A benchmark in a folder, as LLaMA-Factory lays it out: mapping.json and a zip of CSV files, or the files unpacked."""

from __future__ import annotations

import csv
import io
import json
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from tunesmith.core.errors import DataError, Problem
from tunesmith.evaluation.question import LETTERS, Question

SPLIT_FOLDERS = {"train": "dev", "validation": "val", "test": "test"}
"""Split -> how folders and files call it."""
_QUESTION, _ANSWER = "question", "answer"


@dataclass(frozen=True, slots=True)
class BenchmarkFolder:
    """The files of one benchmark.

    Attributes:
        path: the folder.
        files: name inside the zip or below the folder -> reads its text.
    """

    path: Path
    files: dict[str, Callable[[], str]]

    @classmethod
    def open(cls, path: Path) -> BenchmarkFolder:
        """Lists `NAME.zip` (or the only zip there is), and CSV files below the folder.

        Raises:
            DataError: there are no CSV files, or the zip is broken.
        """
        zips = sorted(path.glob("*.zip"))
        chosen = next((file for file in zips if file.stem == path.name), zips[0] if len(zips) == 1 else None)
        files: dict[str, Callable[[], str]] = {}
        if chosen is not None:
            try:
                with zipfile.ZipFile(chosen) as archive:
                    names = archive.namelist()
            except (OSError, zipfile.BadZipFile) as error:
                raise DataError([Problem(f"not a readable zip file: {error}", str(chosen))]) from error
            files = {name: _in_zip(chosen, name) for name in names if name.endswith(".csv")}
        for file in sorted(path.rglob("*.csv")):
            files[file.relative_to(path).as_posix()] = _on_disk(file)
        if not files:
            fix = f"put {path.name}.zip there, or its folders {', '.join(SPLIT_FOLDERS.values())} with CSV files"
            raise DataError([Problem("the folder holds no questions", str(path), fix)])
        return cls(path, files)

    def subjects(self) -> dict[str, tuple[str, str]]:
        """Subject -> (title, category) as mapping.json says; empty where there is none.

        Raises:
            DataError: mapping.json cannot be read.
        """
        file = self.path / "mapping.json"
        if not file.is_file():
            return {}
        try:
            raw = json.loads(file.read_text(encoding="utf-8-sig"))
            return {name: (str(entry["name"]), str(entry["category"])) for name, entry in raw.items()}
        except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
            fix = 'write {"my_subject": {"name": "my subject", "category": "Other"}, ...}'
            raise DataError([Problem(f"not a readable mapping of subjects: {error!r}", str(file), fix)]) from error

    def names(self, split: str) -> list[str]:
        """The subjects that have a file for a split, sorted."""
        return sorted({name for name in (_subject_of(file, split) for file in self.files) if name})

    def questions(self, subject: str, split: str) -> tuple[Question, ...]:
        """The questions of one subject; none where it has no file for the split.

        Raises:
            DataError: rows that cannot be read.
        """
        for name, read in self.files.items():
            if _subject_of(name, split) == subject:
                return tuple(parse_questions(read(), f"{self.path.name}/{name}"))
        return ()


def _in_zip(archive: Path, name: str) -> Callable[[], str]:
    def read() -> str:
        with zipfile.ZipFile(archive) as opened:
            return _decode(opened.read(name), f"{archive}:{name}")

    return read


def _on_disk(file: Path) -> Callable[[], str]:
    return lambda: _decode(file.read_bytes(), str(file))


def _decode(raw: bytes, where: str) -> str:
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError([Problem(f"not UTF-8 text ({error.reason})", where, "save it as UTF-8")]) from error


def _subject_of(name: str, split: str) -> str | None:
    """The subject of a file `.../dev/SUBJECT_dev.csv` or `.../dev/SUBJECT.csv`; None where it is of another split."""
    path = PurePosixPath(name)
    folder = SPLIT_FOLDERS[split]
    return path.stem.removesuffix(f"_{folder}") if path.parent.name == folder else None


def parse_questions(text: str, where: str) -> Iterator[Question]:
    """Questions of a CSV file: `question,A,B,C,D,answer` without a header, or any columns with one.

    Args:
        text: of the file.
        where: its name, for messages.

    Raises:
        DataError: the first rows that cannot be read.
    """
    rows = [row for row in csv.reader(io.StringIO(text, newline="")) if any(cell.strip() for cell in row)]
    if not rows:
        raise DataError([Problem("the file holds no questions", where)])
    header = [cell.strip().lower() for cell in rows[0]]
    has_header = _QUESTION in header and "a" in header
    columns = header if has_header else [_QUESTION, *LETTERS[: len(rows[0]) - 2].lower(), _ANSWER]
    problems: list[Problem] = []
    for number, cells in enumerate(rows[has_header:], start=1 + has_header):
        try:
            if len(cells) != len(columns):
                raise ValueError(f"the row has {len(cells)} cells, the first one {len(columns)}")
            yield make_question(dict(zip(columns, cells, strict=True)))
        except ValueError as error:
            problems.append(Problem(str(error), f"{where}, row {number}"))
    if problems:
        raise DataError(problems[:10])


def make_question(row: dict[str, str]) -> Question:
    """A question from columns `question`, `a`, `b`, ... and `answer` (a letter; empty or missing: not published).

    Raises:
        ValueError: fewer than two choices, or an answer that is none of them.
    """
    choices = []
    for letter in LETTERS.lower():
        if letter not in row:
            break
        choices.append(row[letter].strip())
    if len(choices) < 2 or not row.get(_QUESTION, "").strip():
        raise ValueError("a question needs a text and the choices A, B, ...")
    answer = (row.get(_ANSWER) or "").strip().upper()
    letters = LETTERS[: len(choices)]
    if answer and (len(answer) != 1 or answer not in letters):
        raise ValueError(f"the answer is {answer!r}, not one of {letters}")
    return Question(row[_QUESTION].strip(), tuple(choices), letters.index(answer) if answer else None)
