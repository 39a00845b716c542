"""Quoted stretches of a paragraph: “ ”, 「 」, 『 』, straight quotes, and ‘ ’ where a text uses them for speech."""

from __future__ import annotations

from dataclasses import dataclass

_PAIRS = {"“": "”", "「": "」", "『": "』", '"': '"', "‘": "’"}
_ENDS = frozenset("。！？!?….，,、—-~～；;")


@dataclass(frozen=True, slots=True)
class Quote:
    """What stands between quotation marks.

    Attributes:
        start: of the opening mark.
        end: behind the closing mark, or the end of the paragraph where it never closes.
        is_open: it never closes; the next paragraph goes on with it.
    """

    start: int
    end: int
    is_open: bool = False

    def words(self, text: str) -> str:
        """What is between the marks, on one line."""
        inner = text[self.start + 1 : self.end if self.is_open else self.end - 1]
        return " ".join(inner.split())

    def sounds_spoken(self, text: str) -> bool:
        """Whether it ends as speech does; single words and names in quotation marks do not."""
        words = self.words(text)
        return bool(words) and (words[-1] in _ENDS or len(words) > 40)


def marks_of(text: str) -> frozenset[str]:
    """The opening marks that a text uses for speech: the most frequent, and the others of the same rank."""
    doubles = {mark for mark in ("“", "「", '"') if mark in text}
    if doubles:
        return frozenset({max(doubles, key=text.count), *(doubles & {"“", "「"})})
    return frozenset({"‘"} if text.count("‘") > 3 else {"『"} if "『" in text else set())


def quotes_of(text: str, start: int, end: int, marks: frozenset[str]) -> list[Quote]:
    """The outermost quotes of a paragraph, in order."""
    found: list[Quote] = []
    place = start
    while place < end:
        if text[place] not in marks:
            place += 1
            continue
        stop = _closing(text, place, end)
        found.append(Quote(place, end, True) if stop < 0 else Quote(place, stop + 1))
        place = found[-1].end
    return found


def _closing(text: str, place: int, end: int) -> int:
    """Where the quote that opens at `place` closes; -1 where it does not in its paragraph."""
    mark = text[place]
    close = _PAIRS[mark]
    depth = 0
    for at in range(place + 1, end):
        if text[at] == close and not (close == "’" and at + 1 < end and text[at + 1].isalpha()):
            if not depth:
                return at
            depth -= 1
        elif text[at] == mark and mark != close:
            depth += 1
    return -1
