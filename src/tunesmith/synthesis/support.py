"""Whether an answer stands on its source, and on which words of it. Rules only; no model."""

from __future__ import annotations

import math
import re
from collections import Counter
from dataclasses import dataclass, field

from tunesmith.synthesis.sentences import sentences, trimmed
from tunesmith.synthesis.words import content, numbers, says_number

_IGNORED = re.compile(r"[\W_]+")
_GAP = re.compile(r"(?:\.{3,}|…+|\[\.\.\.\])")
_LEAST_QUOTE = 4
"""Letters or characters of a quote that can be told from chance."""
_FEW = 3
_WIDEST = 3
_WORTH = 0.15
"""Share of the answer that a neighbouring sentence must add to be part of the evidence."""


@dataclass(frozen=True, slots=True)
class Evidence:
    """Words of the source that an answer stands on.

    Attributes:
        start: first character, in the whole text.
        end: behind the last.
        found_by: `model` copied it, or `rule` chose it.
    """

    start: int
    end: int
    found_by: str


@dataclass(slots=True)
class Ground:
    """A stretch of a text, ready to be compared with many answers.

    Attributes:
        text: the whole text.
        start: where the stretch begins.
        end: where it ends.
    """

    text: str
    start: int
    end: int
    _content: set[str] = field(init=False)
    _sentences: list[tuple[int, int, set[str]]] = field(init=False)
    _spread: Counter[str] = field(init=False)
    _letters: str = field(init=False)
    _places: list[int] = field(init=False)

    def __post_init__(self) -> None:
        stretch = self.text[self.start : self.end]
        self._content = content(stretch)
        spans = [trimmed(self.text, start, end) for start, end, _ in sentences(self.text, self.start, self.end)]
        self._sentences = [(start, end, content(self.text[start:end])) for start, end in spans]
        self._spread = Counter(unit for _, _, held in self._sentences for unit in held)
        kept = [(sign.lower(), place) for place, sign in enumerate(stretch, self.start) if not _IGNORED.match(sign)]
        self._letters = "".join(sign for sign, _ in kept if len(sign) == 1)
        self._places = [place for sign, place in kept if len(sign) == 1]

    def share(self, question: str, answer: str) -> float:
        """Share of the answer's content that the stretch holds; very short answers count with their question."""
        said = content(answer)
        if len(said) < _FEW:
            said |= content(question)
        return len(said & self._content) / len(said) if said else 0.0

    def unknown_numbers(self, question: str, answer: str) -> list[str]:
        """Numbers of the answer that neither the stretch nor the question holds."""
        known = f"{self.text[self.start : self.end]}\n{question}"
        return sorted(number for number in numbers(answer) if not says_number(known, number))

    def find(self, quote: str) -> Evidence | None:
        """Where a copied quote stands, if but for blanks, punctuation and case it stands there; else None.

        Of a quote with gaps the longest piece is looked for.
        """
        pieces = sorted((_IGNORED.sub("", piece).lower() for piece in _GAP.split(quote)), key=len, reverse=True)
        wanted = pieces[0] if pieces else ""
        place = self._letters.find(wanted) if len(wanted) >= _LEAST_QUOTE else -1
        if place < 0:
            return None
        start, end = self._places[place], self._places[place + len(wanted) - 1] + 1
        return Evidence(*self._closed(start, end), "model")

    def _closed(self, start: int, end: int) -> tuple[int, int]:
        """A span with the punctuation that ends its sentence."""
        while end < self.end and self.text[end] in "。！？!?.…”’」』）)\"'":
            end += 1
        return start, end

    def best(self, question: str, answer: str) -> Evidence | None:
        """The sentences that share most with the answer; None where none shares anything."""
        said = content(answer)
        said = said if len(said) >= _FEW else said | content(question)
        scores = [self._weight(said & held) for _, _, held in self._sentences]
        if not any(scores):
            return None
        first = last = scores.index(max(scores))
        covered = said & self._sentences[first][2]
        while last - first + 1 < _WIDEST:
            options = [place for place in (first - 1, last + 1) if 0 <= place < len(scores)]
            gains = {place: self._weight((said & self._sentences[place][2]) - covered) for place in options}
            place = max(gains, key=lambda one: gains[one], default=-1)
            if place < 0 or gains[place] < _WORTH * self._weight(said & self._content):
                break
            covered |= said & self._sentences[place][2]
            first, last = min(first, place), max(last, place)
        return Evidence(self._sentences[first][0], self._sentences[last][1], "rule")

    def _weight(self, shared: set[str]) -> float:
        """How much is shared: what stands in few sentences counts more."""
        return sum(math.log(1 + len(self._sentences) / self._spread[unit]) for unit in shared)
