"""What is said, by whom, where: the nouns of finding dialogue, and the person that is looked for."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from tunesmith.core.errors import DataError, Problem
from tunesmith.core.lazy import nearest

_SHOWN_NAMES = 8


@dataclass(frozen=True, slots=True)
class Utterance:
    """Words that somebody says.

    Attributes:
        start: first character of the words in the text.
        end: behind the last.
        words: what is said, without stage directions and quotation marks.
        paragraph: number of its paragraph, or line of a script.
        scene: number of the chapter or scene.
        speaker: name as the text calls them; None: not clear.
        found_by: rule or model.
    """

    start: int
    end: int
    words: str
    paragraph: int
    scene: int
    speaker: str | None = None
    found_by: str = "rule"


class Person:
    """The one whose words are learned.

    Args:
        names: names and aliases.
    """

    def __init__(self, names: Sequence[str]) -> None:
        self.names = tuple(names)
        self._folded = {_fold(name) for name in names}

    def is_called(self, name: str | None) -> bool:
        """Whether a name is theirs; titles and articles before it do not count."""
        return name is not None and _fold(name) in self._folded


def _fold(name: str) -> str:
    return re.sub(r"\s+", " ", name.strip().lower().removeprefix("the "))


def is_word(text: str, place: int, end: int) -> bool:
    """Whether a stretch is no part of a longer Latin word."""
    before, behind = text[max(0, place - 1) : place], text[end : end + 1]
    return not (before.isascii() and before.isalnum()) and not (behind.isascii() and behind.isalnum())


def check_person(person: Person, text: str, utterances: Iterable[Utterance], place: str) -> None:
    """Refuses a name that nobody has.

    Raises:
        DataError: none of the names speaks; with the nearest name, and who speaks most.
    """
    speakers = Counter(one.speaker for one in utterances if one.speaker)
    if any(person.is_called(name) for name in speakers):
        return
    listed = ", ".join(f"{name} ({count})" for name, count in speakers.most_common(_SHOWN_NAMES))
    known = f"who speaks: {listed}" if listed else "no speaker was found: is the text a novel or a script?"
    problems = []
    for name in person.names:
        if name in text:
            what = f"roles: {name} is in the text, but nothing that they say was found"
        else:
            what = f"roles: {name} is nowhere in the text"
        near = nearest(name, speakers, cutoff=0.4)
        problems.append(Problem(what, place, f"did you mean {near}? {known}" if near else known))
    raise DataError(problems)
