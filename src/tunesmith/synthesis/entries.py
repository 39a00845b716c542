"""Entries of chunks: which are asked for, how they are asked for until they can be used, and which are."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tunesmith.synthesis.calls import Asker, Call, CallFailedError
from tunesmith.synthesis.chunking import Chunk
from tunesmith.synthesis.filters import Fault, fault_of
from tunesmith.synthesis.prompts import (
    TYPES,
    Wish,
    entries_as_json,
    entries_as_text,
    language_of,
    opening_of,
    support_question,
)
from tunesmith.synthesis.replies import Entry, read_entries
from tunesmith.synthesis.rows import Failure, Row
from tunesmith.synthesis.sentences import Border, script_of, sentences, trimmed
from tunesmith.synthesis.support import Evidence, Ground
from tunesmith.synthesis.verdicts import says_yes

if TYPE_CHECKING:
    from tunesmith.config.schema import RunConfig

_ENTRIES_PER_CALL = 5
_TOKENS = 512
_TOKENS_PER_ENTRY = 384
_TOKENS_OF_TEXT = 192
_LEAST_SUPPORT = {"zh": 0.15, "ja": 0.15, "ko": 0.15}
_OTHER_SUPPORT = 0.5
_LONGEST_FOCUS = 200
_LEANS = re.compile(r"(?:It|He|She|They|This|That|These|Those|But|And|Then|His|Her|Its|Their)\b|[他她它这那此其但]")
"""Beginnings of sentences that say little without the one before."""
_SHOWN = 2000
_MOST_GROUNDS = 64
"""Chunks that are kept ready to compare with; a long book has thousands."""


@dataclass(frozen=True, slots=True)
class Slot:
    """One entry that is asked for.

    Attributes:
        chunk: the text.
        place: of the chunk among all.
        number: in the chunk, from 1.
        wish: how to ask, and about what.
    """

    chunk: Chunk
    place: int
    number: int
    wish: Wish

    @property
    def id(self) -> str:
        """Of the row or the failure that comes of it."""
        return f"{self.chunk.name}-{self.number:03d}"

    @property
    def order(self) -> tuple[int, int]:
        """Its place among all."""
        return self.place, self.number


Group = tuple[Slot, ...]
"""Slots of one chunk that one call asks for."""


@dataclass(slots=True)
class EntryMaker:
    """Fills slots.

    Attributes:
        config: of `data make`.
        model: name that calls carry.
        is_local: the generator is a model of our engine.
        asker: answers calls.
        accepted: hears of each row when it is accepted.
    """

    config: RunConfig
    model: str
    is_local: bool
    asker: Asker
    accepted: Callable[[Row], None] = field(default=lambda row: None)
    _grounds: dict[str, Ground] = field(default_factory=dict)

    def groups(self, chunks: Sequence[Chunk]) -> Iterator[Group]:
        """All slots of all chunks, as they are asked for together."""
        size = 1 if self.as_text else self.config.entries_per_call or (1 if self.is_local else _ENTRIES_PER_CALL)
        for place, chunk in enumerate(chunks):
            slots = list(self._slots(chunk, place))
            for first in range(0, len(slots), size):
                yield tuple(slots[first : first + size])

    @property
    def as_text(self) -> bool:
        """Whether entries are asked for in marked lines instead of JSON."""
        return (self.config.reply_format or ("text" if self.is_local else "json")) == "text"

    def _slots(self, chunk: Chunk, place: int) -> Iterator[Slot]:
        kinds = self.config.instruction_types or TYPES[language_of(script_of(chunk.text))]
        spots = [text for text in self._spots(chunk) if any(sign.isalnum() for sign in text)] or [""]
        count = self.config.entries_per_chunk
        for number in range(count):
            spot = number * len(spots) // count
            lead = spots[spot - 1] if spot and _LEANS.match(spots[spot]) else ""
            yield Slot(chunk, place, number + 1, Wish(kinds[(place + number) % len(kinds)], spots[spot], lead))

    def _spots(self, chunk: Chunk) -> Iterator[str]:
        """The sentences of a chunk: entries look at different ones, so that they do not all ask the same."""
        for start, end, border in sentences(chunk.source.text, chunk.start, chunk.end):
            if border is Border.HEADING:
                continue
            start, end = trimmed(chunk.source.text, start, end)
            text = " ".join(chunk.source.text[start:end].split())
            yield text if len(text) <= _LONGEST_FOCUS else f"{text[:_LONGEST_FOCUS]}..."

    def call(self, slots: Sequence[Slot], attempt: int = 1, room: int = 1) -> Call:
        """The call that asks for these slots.

        Args:
            slots: of one chunk.
            attempt: from 1.
            room: times the usual length that the answer may have; `max_new_tokens`, where it is set, is never exceeded.
        """
        config, chunk = self.config, slots[0].chunk
        language = language_of(script_of(chunk.text))
        if self.as_text:
            messages = entries_as_text(slots[0].wish, language)
        else:
            messages = entries_as_json(chunk.text, [slot.wish for slot in slots], config.turns, language)
        most = config.max_new_tokens
        if "max_new_tokens" not in config.explicit:
            most = _TOKENS_OF_TEXT if self.as_text else _TOKENS + _TOKENS_PER_ENTRY * len(slots) * config.turns
            most *= room
        return Call(
            messages,
            self.model,
            config.temperature,
            config.top_p,
            most,
            attempt,
            opening=opening_of(slots[0].wish, language) if self.as_text and self.is_local else "",
            extra=config.extra_body or {},
        )

    async def fill(self, slots: Group) -> list[Row | Failure]:
        """A row or a failure for each slot.

        Raises:
            TunesmithError: no call will succeed.
        """
        rows: dict[int, Row] = {}
        faults: dict[int, Failure] = {}
        room = 1
        for attempt in range(1, self.config.max_attempts + 1):
            missing = [slot for slot in slots if slot.number not in rows]
            if not missing:
                break
            try:
                reply = await self.asker.ask(self.call(missing, attempt, room))
            except CallFailedError as error:
                for slot in missing:
                    faults[slot.number] = _failure(slot, (error.reason, error.detail), "", attempt)
                break
            room = 2 * room if reply.is_cut else room
            entries, why = read_entries(reply.text, self.config.turns)
            for place, slot in enumerate(missing):
                if place >= len(entries):
                    fault = (why or "the reply holds too few entries", f"{len(entries)} of {len(missing)}")
                    faults[slot.number] = _failure(slot, fault, reply.text, attempt)
                    continue
                result = await self._judged(slot, entries[place], attempt)
                if isinstance(result, Row):
                    rows[slot.number] = result
                    self.accepted(result)
                else:
                    faults[slot.number] = result
        return [rows.get(slot.number) or faults[slot.number] for slot in slots]

    async def _judged(self, slot: Slot, entry: Entry, attempt: int) -> Row | Failure:
        """The entry as a row, or why it cannot be one."""
        ground = self._ground(slot.chunk)
        script = script_of(slot.chunk.text)
        fault = fault_of(entry, self.config, script)
        evidence = None if fault else _evidence(ground, entry, slot)
        if not fault and self.config.check_support != "off":
            fault, evidence = self._supported(ground, entry, script, evidence)
        if not fault and self.config.check_support == "model":
            fault = await self._confirmed(slot, entry)
        if fault or evidence is None:
            text = f"{entry.question} / {entry.answer}"
            return _failure(slot, fault or ("no sentence of the source says it", ""), text, attempt)
        return Row(
            id=slot.id,
            instruction=entry.question,
            output=entry.answer,
            source=slot.chunk.source,
            start=evidence.start,
            end=evidence.end,
            group=slot.chunk.name,
            kind=slot.wish.kind,
            system=self.config.row_system,
            history=entry.history,
            found_by=evidence.found_by,
            order=slot.order,
        )

    def _ground(self, chunk: Chunk) -> Ground:
        if chunk.name not in self._grounds:
            if len(self._grounds) >= _MOST_GROUNDS:
                del self._grounds[next(iter(self._grounds))]
            self._grounds[chunk.name] = Ground(chunk.source.text, chunk.start, chunk.end)
        return self._grounds[chunk.name]

    def _supported(
        self, ground: Ground, entry: Entry, script: str, evidence: Evidence | None
    ) -> tuple[Fault | None, Evidence | None]:  # fmt: skip
        least = self.config.min_support
        least = _LEAST_SUPPORT.get(script, _OTHER_SUPPORT) if least is None else least
        for question, answer in (*entry.history, (entry.question, entry.answer)):
            if unknown := ground.unknown_numbers(question, answer):
                return ("a number is not in the source", ", ".join(unknown)), None
            share = ground.share(question, answer)
            if share < least:
                return (
                    "the source does not support the answer",
                    f"{share:.0%} of its words, min_support {least:g}",
                ), None
        return None, evidence

    async def _confirmed(self, slot: Slot, entry: Entry) -> Fault | None:
        """What the model says about the support of each answer."""
        language = language_of(script_of(slot.chunk.text))
        for question, answer in (*entry.history, (entry.question, entry.answer)):
            messages = support_question(slot.chunk.text, question, answer, language)
            call = Call(messages, self.model, 0.0, 1.0, 16 if self.is_local else 1024, purpose="support")
            try:
                reply = await self.asker.ask(call)
            except CallFailedError as error:
                return f"support could not be checked: {error.reason}", error.detail
            verdict = says_yes(reply.text)
            if verdict is not True:
                reason = "the model finds no support" if verdict is False else "the model's verdict is unclear"
                return reason, reply.text[:200]
        return None


def _evidence(ground: Ground, entry: Entry, slot: Slot) -> Evidence | None:
    """The quote that the model copied, if it did, else the sentences that share most with the answer.

    Where nothing is shared at all (which only passes with `check_support: off`), the sentence that was asked about.
    """
    return ground.find(entry.quote) or ground.best(entry.question, entry.answer) or ground.find(slot.wish.focus)


def _failure(slot: Slot, fault: Fault, text: str, attempt: int) -> Failure:
    return Failure(
        id=slot.id,
        reason=fault[0],
        file=slot.chunk.source.name,
        group=slot.chunk.name,
        kind=slot.wish.kind,
        detail=fault[1],
        text=text[:_SHOWN],
        attempts=attempt,
        order=slot.order,
    )
