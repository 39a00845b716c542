"""Long text to chunks of at most so many tokens, which end where paragraphs or sentences end."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from tunesmith.synthesis.counting import TokenCounter
from tunesmith.synthesis.sentences import BLANK, Border, clauses, sentences, trimmed
from tunesmith.synthesis.texts import SourceText

_TAIL = 4
"""A last chunk below a quarter of the limit shares the text of the one before it evenly."""


@dataclass(frozen=True, slots=True)
class Chunk:
    """A stretch of a text.

    Attributes:
        source: the text.
        start: first character.
        end: behind the last character.
        tokens: as they were counted.
        name: what files and lists call it.
    """

    source: SourceText
    start: int
    end: int
    tokens: int
    name: str

    @property
    def text(self) -> str:
        """Its characters."""
        return self.source.text[self.start : self.end]


@dataclass(frozen=True, slots=True)
class _Unit:
    """What is never cut: a sentence, or a part of one that is too long by itself."""

    start: int
    end: int
    border: Border
    tokens: int


def chunks_of(source: SourceText, counter: TokenCounter, limit: int, overlap: int = 0) -> list[Chunk]:
    """The chunks of a text, in order.

    Args:
        source: the text.
        counter: counts tokens.
        limit: tokens of a chunk at most.
        overlap: tokens at most that a chunk begins with again.

    Returns:
        At least one chunk. With no overlap every character but blanks is in exactly one of them.
    """
    units = _units(source.text, counter, limit)
    spans: list[tuple[int, int]] = []
    first = 0
    while first < len(units):
        behind = _cut(units, first, limit)
        behind = _shortened(source.text, units, first, behind, counter, limit)
        spans.append((first, behind))
        if behind == len(units):
            break
        first = _begin(units, first, behind, overlap)
    if not overlap:
        _share_tail(units, spans, limit)
    places = [trimmed(source.text, units[first].start, units[behind - 1].end) for first, behind in spans]
    counts = counter.counts([source.text[start:end] for start, end in places])
    return [
        Chunk(source, start, end, tokens, f"{source.label}_{number:04d}")
        for number, ((start, end), tokens) in enumerate(zip(places, counts, strict=True), start=1)
    ]


def _units(text: str, counter: TokenCounter, limit: int) -> list[_Unit]:
    found = list(sentences(text))
    counts = counter.counts([text[start:end] for start, end, _ in found])
    units: list[_Unit] = []
    for (start, end, border), tokens in zip(found, counts, strict=True):
        if tokens <= limit:
            units.append(_Unit(start, end, border, tokens))
        else:
            units += _parts(text, start, end, border, counter, limit)
    return units


def _parts(text: str, start: int, end: int, border: Border, counter: TokenCounter, limit: int) -> list[_Unit]:
    """A sentence that is longer than a chunk, in clauses, and these in halves until they fit."""
    units: list[_Unit] = []
    spans = list(clauses(text, start, end))
    waiting = list(reversed(spans)) if len(spans) > 1 else [(start, end)]
    while waiting:
        begin, stop = waiting.pop()
        if not text[begin:stop].strip(BLANK):  # goes with what follows, or with what was before
            if waiting:
                waiting[-1] = (begin, waiting[-1][1])
            elif units:
                units[-1] = replace(units[-1], end=stop, border=border)
            continue
        tokens = counter.counts([text[begin:stop]])[0]
        first, last = trimmed(text, begin, stop)
        if tokens > limit and last - first > 1:
            middle = (first + last) // 2
            waiting += [(middle, stop), (begin, middle)]
            continue
        ends = border if stop == end else Border.CLAUSE if text[stop - 1] in "，,、；;：: \n" else Border.NOTHING
        units.append(_Unit(begin, stop, ends, tokens))
    return units


def _cut(units: Sequence[_Unit], first: int, limit: int) -> int:
    """Where the chunk that begins with unit `first` ends best: the best border in its second half, there the last."""
    total = 0
    borders: list[tuple[int, int]] = []
    last = first
    for index in range(first, len(units)):
        total += units[index].tokens
        if total > limit and index > first:
            break
        last = index
        if total >= limit / 2:
            borders.append((units[index].border, -index))
    else:
        return len(units)
    return -min(borders)[1] + 1 if borders else last + 1


def _shortened(
    text: str, units: Sequence[_Unit], first: int, behind: int, counter: TokenCounter, limit: int
) -> int:  # fmt: skip
    """Tokenizers can need more for the whole than for its parts: then the last ones go to the next chunk."""
    while behind - first > 1 and counter.counts([text[units[first].start : units[behind - 1].end].strip()])[0] > limit:
        behind -= 1
    return behind


def _begin(units: Sequence[_Unit], first: int, behind: int, overlap: int) -> int:
    """The first unit of the next chunk."""
    total, begin = 0, behind
    while begin - 1 > first and total + units[begin - 1].tokens <= overlap:
        begin -= 1
        total += units[begin].tokens
    return begin


def _share_tail(units: Sequence[_Unit], spans: list[tuple[int, int]], limit: int) -> None:
    """Two chunks of like size instead of a long one and a scrap."""
    if len(spans) < 2:
        return
    (first, _), (last, end) = spans[-2:]
    if sum(unit.tokens for unit in units[last:end]) * _TAIL >= limit:
        return
    total = sum(unit.tokens for unit in units[first:end])
    before, options = 0, []
    for index in range(first, end - 1):
        before += units[index].tokens
        if max(before, total - before) <= limit:
            uneven = round(8 * abs(2 * before - total) / total)
            options.append((units[index].border + uneven, index + 1))
    if options:
        cut = min(options)[1]
        spans[-2:] = [(first, cut), (cut, end)]
