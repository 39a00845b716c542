"""Speakers that rules leave open: passages with numbered speeches go to a model, and its names are held to the text."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from tunesmith.synthesis.calls import Asker, Call, CallFailedError
from tunesmith.synthesis.dialogue.novel import SOMEBODY
from tunesmith.synthesis.dialogue.speech import Person, Utterance
from tunesmith.synthesis.prompts import language_of, speaker_question
from tunesmith.synthesis.sentences import script_of
from tunesmith.synthesis.texts import SourceText
from tunesmith.synthesis.tolerant import find_objects

if TYPE_CHECKING:
    from tunesmith.config.schema import RunConfig

_AROUND = 300
"""Characters of text before and behind the speeches in question."""
_LONGEST = 2000
_MOST_QUESTIONS = 12
_KNOWN = 12
_UNKNOWN = frozenset({"unknown", "不明", "未知", "none", "null", "?", "？", ""})


@dataclass(frozen=True, slots=True)
class Passage:
    """A stretch of a text with speeches whose speakers are not clear.

    Attributes:
        source: the text.
        start: of the stretch.
        end: of the stretch.
        open: places of these speeches in the list of utterances.
    """

    source: SourceText
    start: int
    end: int
    open: tuple[int, ...]


def passages_of(source: SourceText, utterances: Sequence[Utterance]) -> Iterator[Passage]:
    """Stretches that hold all unclear speeches, those near each other together."""
    waiting: list[int] = []
    for place, one in enumerate(utterances):
        if one.speaker is not None:
            continue
        first = utterances[waiting[0]] if waiting else one
        if waiting and (one.end - first.start > _LONGEST or len(waiting) >= _MOST_QUESTIONS):
            yield _passage(source, utterances, waiting)
            waiting = []
        waiting.append(place)
    if waiting:
        yield _passage(source, utterances, waiting)


def _passage(source: SourceText, utterances: Sequence[Utterance], places: list[int]) -> Passage:
    text = source.text
    start = max(0, utterances[places[0]].start - _AROUND)
    end = min(len(text), utterances[places[-1]].end + _AROUND)
    start = text.find("\n", start, utterances[places[0]].start - 1) + 1 or start
    return Passage(source, start, end, tuple(places))


@dataclass(slots=True)
class SpeakerAsker:
    """Asks who speaks.

    Attributes:
        config: of `data dialogue`.
        model: name that calls carry.
        asker: answers calls; None for an estimate.
        person: their names are known to the model.
    """

    config: RunConfig
    model: str
    asker: Asker | None
    person: Person

    def call(self, passage: Passage, utterances: Sequence[Utterance], attempt: int = 1) -> Call:
        """The call for one passage."""
        text = passage.source.text
        pieces, place = [], passage.start
        for number, index in enumerate(passage.open, start=1):
            start = max(place, utterances[index].start)
            pieces += [text[place:start], f"【{number}】"]
            place = start
        pieces.append(text[place : passage.end])
        counts = Counter(one.speaker for one in utterances if one.speaker and one.speaker != SOMEBODY)
        known = list(dict.fromkeys([*self.person.names, *(name for name, _ in counts.most_common(_KNOWN) if name)]))
        messages = speaker_question("".join(pieces), known, language_of(script_of(text)))
        extra = self.config.extra_body or {}
        return Call(messages, self.model, 0.0, 1.0, self.config.max_new_tokens, attempt, "speakers", extra=extra)

    async def fill(self, passage: Passage, utterances: Sequence[Utterance]) -> dict[int, Utterance]:
        """The speeches of a passage whose speakers the model told, by their place.

        Raises:
            TunesmithError: no call will succeed.
        """
        assert self.asker is not None, "an estimate asks nobody"
        found: dict[int, Utterance] = {}
        for attempt in range(1, self.config.max_attempts + 1):
            try:
                reply = await self.asker.ask(self.call(passage, utterances, attempt))
            except CallFailedError:
                break
            objects, _ = find_objects(reply.text)
            for one in objects:
                for number, name in one.items():
                    place = _place(str(number), passage)
                    if place is not None and isinstance(name, str) and self._is_known(name, passage.source.text):
                        found[place] = replace(utterances[place], speaker=name.strip(), found_by="model")
            if objects:
                break
        return found

    def _is_known(self, name: str, text: str) -> bool:
        """Whether a name stands in the text; models make some up."""
        name = name.strip()
        return name.lower() not in _UNKNOWN and (self.person.is_called(name) or name in text)


def _place(number: str, passage: Passage) -> int | None:
    digits = "".join(sign for sign in number if sign.isdecimal())
    index = int(digits) - 1 if digits else -1
    return passage.open[index] if 0 <= index < len(passage.open) else None
