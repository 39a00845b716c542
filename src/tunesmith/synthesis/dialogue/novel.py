"""Speech in prose: quotes, who speaks them by the words around, by the paragraph, and by the turns of a conversation.

Rules would rather leave a speaker open than guess: what stays open goes to a model, or is listed.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise

from tunesmith.synthesis.dialogue import chinese, english
from tunesmith.synthesis.dialogue.quotes import Quote, marks_of, quotes_of
from tunesmith.synthesis.dialogue.speech import Person, Utterance, is_word
from tunesmith.synthesis.dialogue.subject import PRONOUN, Subject
from tunesmith.synthesis.sentences import is_heading, paragraphs, script_of

SOMEBODY = "?"
"""Speaker of words that are somebody else's, whoever that is."""
_STOPS = re.compile(r"[。！？.!?]")
_LONGEST_CHAIN = 4
"""Paragraphs of speech without a name that are taken to alternate."""
_LONGEST_CLOSED_CHAIN = 12
"""The same where a name at the end confirms the count."""


@dataclass(slots=True)
class _Spoken:
    """A quote on its way to an utterance."""

    quote: Quote
    subject: Subject | None
    speaker: str | None = None


@dataclass(slots=True)
class _Paragraph:
    """One paragraph with its quotes."""

    number: int
    start: int
    end: int
    scene: int
    quotes: list[Quote]
    spoken: list[_Spoken] = field(default_factory=list)

    def before(self, text: str, place: int) -> str:
        """The narration between the quote before a quote (or the beginning) and it."""
        start = self.quotes[place - 1].end if place else self.start
        return text[start : self.quotes[place].start]

    def after(self, text: str, place: int) -> str:
        """The narration between a quote and the next one (or the end)."""
        end = self.quotes[place + 1].start if place + 1 < len(self.quotes) else self.end
        return text[self.quotes[place].end : end]


def read_novel(text: str, person: Person) -> list[Utterance]:
    """All utterances of a novel, in order.

    Args:
        text: the novel.
        person: whose names are known; others are found.
    """
    reader = _Reader(text, person)
    return reader.utterances()


class _Reader:
    """Reads one text."""

    def __init__(self, text: str, person: Person) -> None:
        self.text = text
        self.person = person
        self.is_chinese = script_of(text) == "zh"
        self.paragraphs = self._paragraphs()
        self.names = self._names()
        self._led = {p.number for p in self.paragraphs if p.quotes and p.quotes[0].start > p.start}

    def _paragraphs(self) -> list[_Paragraph]:
        marks = marks_of(self.text)
        found, scene = [], 0
        for number, (start, end) in enumerate(paragraphs(self.text)):
            scene += is_heading(self.text[start:end])
            quotes = quotes_of(self.text, start, end, marks)
            found.append(_Paragraph(number, start, end, scene, quotes))
        return found

    def _names(self) -> list[str]:
        """The person's names and those of others, longest first."""
        places = [(paragraph, place) for paragraph in self.paragraphs for place in range(len(paragraph.quotes))]
        befores = [paragraph.before(self.text, place) for paragraph, place in places]
        afters = [paragraph.after(self.text, place) for paragraph, place in places]
        if self.is_chinese:
            leads = [*map(chinese.sentence_before, befores), *(text.strip() for text in afters)]
            found = chinese.discover(leads, self._narration())
        else:
            found = english.discover(afters, befores)
        return sorted({*self.person.names, *found}, key=len, reverse=True)

    def _narration(self) -> str:
        """The text without its quotes."""
        pieces = []
        for paragraph in self.paragraphs:
            quotes = range(len(paragraph.quotes))
            pieces += [paragraph.before(self.text, place) for place in quotes]
            pieces.append(self.text[paragraph.quotes[-1].end if paragraph.quotes else paragraph.start : paragraph.end])
        return "\n".join(pieces)

    def utterances(self) -> list[Utterance]:
        """Quotes with their speakers, those of one breath together."""
        for paragraph in self.paragraphs:
            self._attribute(paragraph)
        self._drop_wrong_pronouns()
        found = [one for paragraph in self.paragraphs for one in self._breaths(paragraph)]
        return self._in_turns(self._joined(found))

    def _drop_wrong_pronouns(self) -> None:
        """A person is he or she all through a text; what the rarer pronoun told is not clear."""
        by_pronoun = [
            one
            for paragraph in self.paragraphs
            for one in paragraph.spoken
            if one.speaker and one.subject and one.subject.name == PRONOUN
        ]
        counts = Counter((self._same(one.speaker), one.subject.word) for one in by_pronoun if one.subject)
        for one in by_pronoun:
            name, word = self._same(one.speaker), one.subject.word if one.subject else ""
            if any(who == name and counts[who, other] > counts[name, word] for who, other in counts if other != word):
                one.speaker = None

    def _attribute(self, paragraph: _Paragraph) -> None:
        """Speakers of a paragraph's quotes, as far as it says them itself."""
        thinker: str | None = None
        for place, quote in enumerate(paragraph.quotes):
            subject = self._subject(paragraph, place)
            if subject and subject.is_thought:
                thinker = self._meant(paragraph, quote) if subject.name == PRONOUN else subject.name
                continue
            if subject is None and not quote.sounds_spoken(self.text):
                continue
            spoken = _Spoken(quote, subject)
            if subject and subject.name == PRONOUN:
                spoken.speaker = self._meant(paragraph, quote)
            elif subject:
                spoken.speaker = subject.name or (thinker if place else None)
            paragraph.spoken.append(spoken)
        self._tell_pronouns_apart(paragraph)
        said = {one.speaker for one in paragraph.spoken if one.speaker}
        if len({self._same(name) for name in said}) == 1:  # one name a paragraph: all its quotes are theirs
            for one in paragraph.spoken:
                one.speaker = one.speaker or next(iter(said))
            return
        for before, one in pairwise(paragraph.spoken):
            if one.speaker is None and (one.subject is None or one.subject.name is None):
                one.speaker = before.speaker

    def _tell_pronouns_apart(self, paragraph: _Paragraph) -> None:
        """He and she of one paragraph are two people, so neither is clear where both seem to be one."""
        meant: dict[str, set[str]] = {}
        for one in paragraph.spoken:
            if one.subject and one.subject.name == PRONOUN and one.speaker:
                meant.setdefault(self._same(one.speaker), set()).add(one.subject.word)
        for one in paragraph.spoken:
            if one.subject and one.subject.name == PRONOUN and len(meant.get(self._same(one.speaker), ())) > 1:
                one.speaker = None

    def _subject(self, paragraph: _Paragraph, place: int) -> Subject | None:
        before, after = paragraph.before(self.text, place), paragraph.after(self.text, place)
        is_followed = place + 1 < len(paragraph.quotes)
        if self.is_chinese:
            lead = chinese.subject_before(before, self.names)
            if lead is None or (lead.name is None and not lead.is_thought):
                return chinese.subject_after(after, self.names, is_followed=is_followed) or lead
            return lead
        behind = english.subject_after(after, self.names)
        if behind and behind.name != PRONOUN:
            return behind
        # Narration behind an earlier quote of the paragraph is about that one.
        lead = english.subject_before(before, self.names) if place == 0 else None
        return behind if behind and (lead is None or lead.name == PRONOUN) else lead or behind

    def _meant(self, paragraph: _Paragraph, quote: Quote) -> str | None:
        """Whom a pronoun means: the only person that the paragraph's narration names; None where that is not clear."""
        inside = [(other.start, other.end) for other in paragraph.quotes]
        named: dict[str, str] = {}
        for name in self.names:
            place = self.text.find(name, paragraph.start, quote.start)
            while place >= 0:
                free = not any(start <= place < end for start, end in inside)
                if free and is_word(self.text, place, place + len(name)):
                    named.setdefault(self._same(name), name)
                place = self.text.find(name, place + 1, quote.start)
        # A name inside a longer one (上 in 皇上) is no second person.
        kept = [name for name in named.values() if not any(name != other and name in other for other in named.values())]
        return kept[0] if len(kept) == 1 else None

    def _same(self, name: str | None) -> str:
        """One name for all names of the person."""
        return "\0person" if self.person.is_called(name) else (name or "").lower().removeprefix("the ")

    def _breaths(self, paragraph: _Paragraph) -> list[Utterance]:
        """The quotes of a paragraph as utterances: those of one speaker in a row are one."""
        found: list[Utterance] = []
        last_quote: Quote | None = None
        for one in paragraph.spoken:
            start = one.quote.start + 1
            end = one.quote.end - (not one.quote.is_open)
            words = one.quote.words(self.text)
            between = self.text[last_quote.end : one.quote.start] if last_quote else ""
            goes_on = bool(found) and self._same(found[-1].speaker) == self._same(one.speaker)
            # In English a paragraph is one person's; in Chinese two may speak in it.
            if goes_on and (one.speaker or not self.is_chinese or not _STOPS.search(between)):
                found[-1] = replace(found[-1], end=end, words=self._join(found[-1].words, words, between))
            else:
                found.append(Utterance(start, end, words, paragraph.number, paragraph.scene, one.speaker))
            last_quote = one.quote
        return [replace(one, words=self._finished(one.words)) for one in found if one.words]

    def _join(self, first: str, second: str, between: str) -> str:
        """Words that narration interrupted; the comma before it may stand for a full stop."""
        ends = between.rstrip()[-1:] in ".。" and first[-1:] in ",，"
        if ends and (second[:1].isupper() or self.is_chinese):
            first = first[:-1] + ("。" if self.is_chinese else ".")
        return f"{first}{second}" if first[-1:] >= "\u2e80" else f"{first} {second}"

    def _finished(self, words: str) -> str:
        """Words that end with the comma of narration end with a full stop."""
        if words[-1:] == ",":
            return f"{words[:-1]}."
        return f"{words[:-1]}。" if words[-1:] == "，" else words

    def _joined(self, found: list[Utterance]) -> list[Utterance]:
        """A speech over several paragraphs, of which only the last one closes, is one utterance."""
        opens = {p.number for p in self.paragraphs if p.quotes and p.quotes[-1].is_open}
        joined: list[Utterance] = []
        for one in found:
            before = joined[-1] if joined else None
            if before and before.paragraph in opens and one.paragraph == before.paragraph + 1:
                words = f"{before.words}\n{one.words}"
                speaker = before.speaker or one.speaker
                joined[-1] = replace(before, end=one.end, words=words, paragraph=one.paragraph, speaker=speaker)
            else:
                joined.append(one)
        return joined

    def _in_turns(self, found: list[Utterance]) -> list[Utterance]:
        """Speakers of paragraphs without a name: in a conversation of two they take turns."""
        place = 0
        while place < len(found):
            if found[place].speaker is not None:
                place += 1
                continue
            last = place
            while last + 1 < len(found) and self._is_bare(found[last + 1]) and _adjoin(found[last], found[last + 1]):
                last += 1
            if self._is_bare(found[place]):
                self._fill(found, place, last)
            place = last + 1
        return found

    def _is_bare(self, one: Utterance) -> bool:
        """Whether words stand without a speaker, in a paragraph that they begin: it tells of nobody before."""
        return one.speaker is None and one.paragraph not in self._led

    def _fill(self, found: list[Utterance], first: int, last: int) -> None:
        """Fills a chain of utterances without a speaker, if the ones around it allow one way only."""
        before = found[first - 1] if first and _adjoin(found[first - 1], found[first]) else None
        if before is None or before.speaker in (None, SOMEBODY):
            return
        partner = self._partner(found, first - 1)
        following = found[last + 1] if last + 1 < len(found) and _adjoin(found[last], found[last + 1]) else None
        if following is not None and following.speaker is None:
            following = None
        count = last - first + 1
        if partner is None:
            if count == 1 and (following is None or self._same(following.speaker) == self._same(before.speaker)):
                found[first] = replace(found[first], speaker=SOMEBODY)
            return
        turns = [partner if step % 2 == 0 else before.speaker for step in range(count)]
        if following is not None and self._same(following.speaker) == self._same(turns[-1]):
            return  # somebody spoke twice, or a third one spoke
        if count > (_LONGEST_CHAIN if following is None else _LONGEST_CLOSED_CHAIN):
            return
        for step, speaker in enumerate(turns):
            found[first + step] = replace(found[first + step], speaker=speaker)

    def _partner(self, found: Sequence[Utterance], place: int) -> str | None:
        """Whom a speaker talks with: who spoke last before them in the same conversation."""
        speaker = self._same(found[place].speaker)
        for earlier in range(place - 1, max(-1, place - 6), -1):
            one = found[earlier]
            if one.scene != found[place].scene or found[earlier + 1].paragraph - one.paragraph > 2:
                return None
            if one.speaker not in (None, SOMEBODY) and self._same(one.speaker) != speaker:
                return one.speaker
        return None


def _adjoin(first: Utterance, second: Utterance) -> bool:
    """Whether two utterances stand in paragraphs that follow one another."""
    return first.scene == second.scene and second.paragraph - first.paragraph == 1
