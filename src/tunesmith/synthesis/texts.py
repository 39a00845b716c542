"""From `input_file_path` to texts whose characters can be pointed at. What is no UTF-8 text is kept as one."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tunesmith.core import runs
from tunesmith.core.errors import DataError, Problem
from tunesmith.core.lazy import load_object, nearest

if TYPE_CHECKING:
    from tunesmith.config.schema import RunConfig

_READERS = {
    ".txt": "tunesmith.synthesis.readers.plain:read",
    ".text": "tunesmith.synthesis.readers.plain:read",
    ".md": "tunesmith.synthesis.readers.plain:read",
    ".markdown": "tunesmith.synthesis.readers.plain:read",
    ".fountain": "tunesmith.synthesis.readers.plain:read",
    ".html": "tunesmith.synthesis.readers.markup:read",
    ".htm": "tunesmith.synthesis.readers.markup:read",
    ".xhtml": "tunesmith.synthesis.readers.markup:read",
    ".docx": "tunesmith.synthesis.readers.docx:read",
    ".epub": "tunesmith.synthesis.readers.epub:read",
    ".pdf": "tunesmith.synthesis.readers.pdf:read",
}
SOURCES = "sources"
"""Folder in `output_dir` for the text of what is no UTF-8 text file."""


@dataclass(frozen=True, slots=True)
class SourceText:
    """One long text.

    Attributes:
        file: the UTF-8 file that holds exactly `text`; spans of rows point into it.
        text: all characters, line ends as they stand.
        label: short name, of no other text of this run.
        document: the file it was taken out of, where that is another.
    """

    file: Path
    text: str
    label: str
    document: Path | None = None

    def keep(self) -> None:
        """Writes `file` where it is not the user's own."""
        if self.document is not None:
            runs.write_atomic(self.file, self.text)

    @property
    def name(self) -> str:
        """The file that the user named."""
        return str(self.document or self.file)


def read_texts(config: RunConfig, folder: Path) -> list[SourceText]:
    """All texts that `input_file_path` names; nothing is written yet.

    Args:
        config: of a command that makes data.
        folder: where `sources/` will be.

    Raises:
        DataError: every file that cannot be read or holds nothing to read.
    """
    found: list[SourceText] = []
    problems: list[Problem] = []
    taken: set[str] = set()
    for path in _files(config.input_file_path):
        try:
            text = _read(path, config.text_encoding)
        except DataError as error:
            problems += error.problems
            continue
        label = _free(path.stem, taken)
        if _is_own(path, text):
            found.append(SourceText(path, text, label))
        else:
            found.append(SourceText(folder / SOURCES / f"{label}.txt", text, label, path))
    if problems:
        raise DataError(problems)
    return found


def _files(names: Iterable[str]) -> Iterator[Path]:
    for name in names:
        path = Path(name).expanduser()
        if not path.is_dir():
            yield path
            continue
        inside = [file for file in sorted(path.iterdir()) if file.is_file() and file.suffix.lower() in _READERS]
        if not inside:
            what = "the folder holds no long text"
            raise DataError([Problem(what, name, f"put {', '.join(sorted(_READERS))} files into it")])
        yield from inside


def _read(path: Path, encoding: str | None) -> str:
    suffix = path.suffix.lower()
    if suffix not in _READERS:
        near = nearest(suffix, _READERS, cutoff=0.7)
        fix = f"did you mean {near}? " if near else ""
        fix += "read are txt, md, html, docx, epub and pdf; save a doc, mobi or rtf file as one of these"
        raise DataError([Problem(f"file type {suffix or '(none)'} is not read", str(path), fix)])
    try:
        data = path.read_bytes()
    except OSError as error:
        raise DataError([Problem(f"cannot be read: {error.strerror or error}", str(path))]) from error
    read: Callable[[bytes, str, str | None], str] = load_object(_READERS[suffix])
    text = read(data, str(path), encoding)
    if not any(character.isalnum() for character in text):
        size = "is empty" if not data else f"of {len(data)} bytes holds no letter"
        raise DataError([Problem(f"there is nothing to read: the file {size}", str(path), "name another text")])
    return text


def _is_own(path: Path, text: str) -> bool:
    """Whether the file itself holds exactly this text as UTF-8."""
    return _READERS[path.suffix.lower()].endswith("plain:read") and path.read_bytes() == text.encode()


def _free(stem: str, taken: set[str]) -> str:
    """A name that no other text of this run has."""
    label, number = stem, 2
    while label in taken:
        label, number = f"{stem}_{number}", number + 1
    taken.add(label)
    return label
