"""Chunks as files in a folder, as the tutorials keep them (`saveChunk/`), with a list that says where each stands."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from tunesmith.core import runs
from tunesmith.core.errors import DataError, Problem
from tunesmith.synthesis.chunking import Chunk
from tunesmith.synthesis.counting import TokenCounter
from tunesmith.synthesis.readers import plain
from tunesmith.synthesis.texts import SourceText

LIST = "chunks.jsonl"


def write_chunks(folder: Path, chunks: Sequence[Chunk]) -> list[Path]:
    """Writes each chunk as a txt file, and the list.

    Files that an earlier run made of the same texts are replaced; chunks of other texts and other files stay.

    Raises:
        DataError: a file is in the way that no earlier run wrote, or that was changed since.
    """
    texts = {chunk.source.name for chunk in chunks}
    known = {str(line.get("chunk")): line for line in runs.read_lines(folder / LIST)}
    old = {name for name, line in known.items() if (line.get("document") or line.get("file")) in texts}
    names = [f"{chunk.name}.txt" for chunk in chunks]
    _check_free(folder, {*names, *old}, known, old)
    for name in old - set(names):
        (folder / name).unlink(missing_ok=True)
    for source in {chunk.source.label: chunk.source for chunk in chunks}.values():
        source.keep()
    for name, chunk in zip(names, chunks, strict=True):
        runs.write_atomic(folder / name, chunk.text)
    lines = [line for name, line in known.items() if name not in old]
    lines += [_line(name, chunk) for name, chunk in zip(names, chunks, strict=True)]
    runs.write_atomic(folder / LIST, "".join(f"{json.dumps(line, ensure_ascii=False)}\n" for line in lines))
    return [folder / name for name in names]


def _line(name: str, chunk: Chunk) -> dict[str, Any]:
    return {
        "chunk": name,
        "file": str(chunk.source.file),
        "document": str(chunk.source.document) if chunk.source.document else None,
        "start": chunk.start,
        "end": chunk.end,
        "tokens": chunk.tokens,
        "sha256": _digest(chunk.text),
    }


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _check_free(folder: Path, names: Iterable[str], known: dict[str, dict[str, Any]], old: set[str]) -> None:
    problems = []
    for name in sorted(names):
        path = folder / name
        if not path.exists():
            continue
        if name not in old:
            what = "the file is in the way, and data split did not write it for this text"
        elif hashlib.sha256(path.read_bytes()).hexdigest() != known[name].get("sha256"):
            what = "the chunk was changed since it was written"
        else:
            continue
        problems.append(Problem(what, str(path), "move it away, or set output_dir"))
    if problems:
        raise DataError(problems)


def read_chunks(folder: Path, counter: TokenCounter) -> list[Chunk]:
    """The chunks of a folder, in the order of their names.

    A file that the list knows and that still says what its text says there points into that text; any other txt file
    is a text of its own.

    Raises:
        DataError: there is none, or one is empty or no text.
    """
    files = sorted(path for path in folder.glob("*.txt") if path.is_file())
    if not files:
        raise DataError([Problem("the folder holds no txt file", str(folder), "tunesmith data split writes them")])
    known = {str(line.get("chunk")): line for line in runs.read_lines(folder / LIST)}
    texts: dict[str, SourceText] = {}
    chunks: list[Chunk] = []
    problems: list[Problem] = []
    for path in files:
        try:
            text = plain.read(path.read_bytes(), str(path))
        except DataError as error:
            problems += error.problems
            continue
        if not any(character.isalnum() for character in text):
            problems.append(Problem("the chunk is empty", str(path), "take the file out of the folder"))
            continue
        place = _place(text, known.get(path.name), texts)
        if place is None:
            place = SourceText(path, text, path.stem), 0, len(text)
            if path.read_bytes() != text.encode():
                problems.append(Problem("the chunk is not UTF-8", str(path), "save it as UTF-8"))
                continue
        chunks.append(Chunk(*place, counter.counts([text])[0], path.stem))
    if problems:
        raise DataError(problems)
    return chunks


def _place(
    text: str, line: dict[str, Any] | None, texts: dict[str, SourceText]
) -> tuple[SourceText, int, int] | None:  # fmt: skip
    """Where a chunk stands in its text, if it does."""
    if not line:
        return None
    file = str(line["file"])
    if file not in texts:
        try:
            whole = Path(file).read_bytes().decode()
        except (OSError, UnicodeDecodeError):
            return None
        document = Path(line["document"]) if line.get("document") else None
        texts[file] = SourceText(Path(file), whole, Path(file).stem, document)
    start, end = int(line["start"]), int(line["end"])
    return (texts[file], start, end) if texts[file].text[start:end] == text else None
