"""Where sentences, clauses and paragraphs end, in Chinese and in languages with blanks; what script a text is in."""

from __future__ import annotations

import re
from collections.abc import Iterator
from enum import IntEnum
from itertools import pairwise

_SENTENCE = re.compile(
    r"""(?P<dense>[。！？!?…]+[”’」』）】》)"']*)"""
    r"""|(?P<latin>(?:\.{1,4}|[!?]+)["'”’)\]]*)(?=\s|$)"""
    r"""|(?P<line>\n[ \t\u3000\r]*\n\s*|\n)"""
)
_CLAUSE = re.compile(r"[，,、；;：:—]+\s*|\s+")
_ABBREVIATION = re.compile(
    r"(?:\b(?:Mr|Mrs|Ms|Dr|Prof|St|Sr|Jr|Mt|No|Vol|vs|etc|cf|e\.g|i\.e|Capt|Col|Gen|Lt|Rev|Hon)|\b[A-Z])$"
)
_HEADING = re.compile(
    r"\s*(?:#{1,6}\s+\S.*|第\s*[一二三四五六七八九十百千零〇两\d]+\s*[章回节卷部幕场篇].{0,40}"
    r"|(?:chapter|part|book|act|scene|section)\s+(?:[\divxlc]+|one|two|three|four|five|six|seven|eight|nine|ten)\b.{0,60})\s*",
    re.IGNORECASE,
)
BLANK = " \t\r\n\f\v\u3000\u00a0\ufeff"
"""Characters that a span neither begins nor ends with."""


class Border(IntEnum):
    """What ends at a place; the lower, the better a chunk ends there."""

    CHAPTER = 0
    PARAGRAPH = 1
    SENTENCE = 2
    HEADING = 3
    CLAUSE = 4
    NOTHING = 5


def sentences(text: str, start: int = 0, end: int | None = None) -> Iterator[tuple[int, int, Border]]:
    """(start, end, what ends there) of all sentences of a stretch: without gaps, blanks behind them included.

    A line end inside a paragraph whose lines are only wrapped ends nothing.
    """
    end = len(text) if end is None else end
    begun = start
    wrapped = is_wrapped(text)
    for match in _SENTENCE.finditer(text, start, end):
        if match.start() < begun:
            continue
        stop = match.end()
        if match.lastgroup == "line":
            if wrapped and match[0] == "\n":
                continue
            border = Border.PARAGRAPH
        elif match.lastgroup == "latin" and _ABBREVIATION.search(text, max(start, match.start() - 8), match.start()):
            continue
        else:
            border = Border.SENTENCE
            while stop < end and text[stop] in " \t\u3000":
                stop += 1
            if line := re.compile(r"[\r]?\n\s*").match(text, stop, end):
                is_paragraph = not wrapped or line[0].count("\n") > 1
                stop, border = line.end(), Border.PARAGRAPH if is_paragraph else border
        if not text[begun:stop].strip(BLANK):
            continue
        yield begun, stop, _with_headings(text, begun, stop, end, border)
        begun = stop
    if text[begun:end].strip(BLANK):
        yield begun, end, Border.PARAGRAPH


def _with_headings(text: str, begun: int, stop: int, end: int, border: Border) -> Border:
    """No chunk ends behind a heading, and one ends well before it."""
    if border is not Border.PARAGRAPH:
        return border
    if _HEADING.fullmatch(text[begun:stop]):
        return Border.HEADING
    line_end = text.find("\n", stop, end)
    following = text[stop : end if line_end < 0 else line_end]
    return Border.CHAPTER if _HEADING.fullmatch(following) else border


def is_heading(line: str) -> bool:
    """Whether a line is the heading of a chapter or scene."""
    return bool(_HEADING.fullmatch(line))


def paragraphs(text: str) -> Iterator[tuple[int, int]]:
    """(start, end) of all paragraphs, blanks at their ends left out."""
    border = re.compile(r"\n[ \t\u3000\r]*\n\s*" if is_wrapped(text) else r"\n\s*")
    place = 0
    for match in [*border.finditer(text), None]:
        start, end = trimmed(text, place, match.start() if match else len(text))
        if start < end:
            yield start, end
        place = match.end() if match else len(text)


def clauses(text: str, start: int, end: int) -> Iterator[tuple[int, int]]:
    """(start, end) of the parts of a sentence, without gaps."""
    begun = start
    for match in _CLAUSE.finditer(text, start, end):
        if match.end() > begun:
            yield begun, match.end()
            begun = match.end()
    if begun < end:
        yield begun, end


def is_wrapped(text: str) -> bool:
    """Whether line ends only wrap the lines, and empty lines end paragraphs; judged by the first 20,000 characters."""
    head = text[:20_000].replace("\r", "")
    lines = head.split("\n")
    inner = [line for line, following in pairwise(lines) if line.strip() and following.strip()]
    if len(inner) < 4 or "\n\n" not in head:
        return False
    open_lines = sum(line.rstrip()[-1] not in "。！？!?….”」』\"'：:" for line in inner)
    return open_lines > len(inner) / 2


def trimmed(text: str, start: int, end: int) -> tuple[int, int]:
    """A span without the blanks at its ends."""
    while start < end and text[start] in BLANK:
        start += 1
    while end > start and text[end - 1] in BLANK:
        end -= 1
    return start, end


_SCRIPTS = (
    ("zh", re.compile(r"[\u3400-\u4dbf\u4e00-\u9fff]")),
    ("ja", re.compile(r"[\u3040-\u30ff]")),
    ("ko", re.compile(r"[\uac00-\ud7af]")),
    ("ru", re.compile(r"[\u0400-\u04ff]")),
    ("en", re.compile(r"[A-Za-z\u00c0-\u024f]+")),
)


def script_of(text: str) -> str:
    """The script of most of a text: zh, ja, ko, ru (Cyrillic), en (Latin), or empty where there are no letters.

    A Latin word counts as two Chinese characters; a text with one kana in ten signs is Japanese.
    """
    counts = {name: len(pattern.findall(text)) for name, pattern in _SCRIPTS}
    counts["en"] *= 2
    if counts["ja"] * 10 >= counts["zh"] + counts["ja"] > 0:
        counts["ja"] += counts.pop("zh")
    best = max(counts, key=lambda name: counts[name])
    return best if counts[best] else ""
