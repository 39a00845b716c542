"""PDF files, through pypdf: lines become paragraphs again; running heads and page numbers are left out."""

from __future__ import annotations

import io
import logging
import re
from collections import Counter
from itertools import pairwise

from tunesmith.core import optional
from tunesmith.core.errors import DataError, Problem

_ENDS = frozenset("。！？!?.…”」』\"'’)）：:;；")
_FIRST_DENSE = "\u2e80"
_NUMBER = re.compile(
    r"[\s\-–—·.,|/]*(?:\d+|[ivxlc]+|第\s*\d+\s*页)(?:\s*(?:/|of|共)\s*\d+\s*页?)?[\s\-–—·.,|]*", re.IGNORECASE
)
_SHORT = 0.75
"""A line shorter than this part of the usual length ends its paragraph, if a sentence ends there, too."""
_OFTEN = 3
"""Pages that a first or last line must stand on to be a running head; and at least half of them."""


def read(data: bytes, place: str, encoding: str | None = None) -> str:
    """The text, an empty line between paragraphs.

    Raises:
        DataError: broken, encrypted, or pictures only.
        MissingPackageError: pypdf is not installed.
    """
    pypdf = optional.require("pypdf", "documents", f"{place}: a PDF file")
    logging.getLogger("pypdf").setLevel(logging.ERROR)  # it tells of every oddity that it gets over
    try:
        document = pypdf.PdfReader(io.BytesIO(data))
        if document.is_encrypted and not document.decrypt(""):
            raise DataError([Problem("the PDF asks for a password", place, "save it without one")])
        pages = [page.extract_text() or "" for page in document.pages]
    except DataError:
        raise
    except Exception as error:  # pypdf lets errors of many kinds out of broken files
        what = f"the PDF cannot be read ({type(error).__name__}: {error})"
        raise DataError([Problem(what, place, "open it and save or print it as a new PDF, or as txt")]) from error
    if not any(page.strip() for page in pages):
        what = f"the PDF has {len(pages)} pages and no text: they are probably scanned pictures"
        raise DataError([Problem(what, place, "run text recognition (OCR) over it first")])
    return joined([_lines(page) for page in pages])


def _lines(page: str) -> list[str]:
    return [line.strip() for line in page.replace("\r", "\n").split("\n")]


def joined(pages: list[list[str]]) -> str:
    """Paragraphs out of the lines of all pages."""
    heads = _running_heads(pages)
    lines: list[str] = []
    for page in pages:
        kept = [line for line in page if line]
        while kept and (kept[0] in heads or _NUMBER.fullmatch(kept[0])):
            kept.pop(0)
        while kept and (kept[-1] in heads or _NUMBER.fullmatch(kept[-1])):
            kept.pop()
        lines += kept
    usual = sorted(len(line) for line in lines)[len(lines) * 3 // 4] if lines else 0
    text = lines[0] if lines else ""
    for before, line in pairwise(lines):
        ends = before[-1] in _ENDS and len(before) < _SHORT * usual
        is_heading = len(before) < usual / 2 and before[-1] not in "，,、；;-"
        text = f"{text}\n\n{line}" if ends or is_heading else _append(text, line)
    return text + "\n"


def _append(text: str, line: str) -> str:
    """A line behind text of the same paragraph: no blank between Chinese characters, no hyphen inside a word."""
    if len(text) > 1 and text[-1] == "-" and text[-2].islower() and line[:1].islower():
        return text[:-1] + line
    is_dense = text[-1] >= _FIRST_DENSE or line[0] >= _FIRST_DENSE
    return f"{text}{line}" if is_dense else f"{text} {line}"


def _running_heads(pages: list[list[str]]) -> set[str]:
    """Lines that stand first or last on half of the pages."""
    found: Counter[str] = Counter()
    for page in pages:
        kept = [line for line in page if line]
        found.update(set(kept[:1] + kept[-1:]))
    return {line for line, count in found.items() if count >= max(_OFTEN, len(pages) / 2)}
