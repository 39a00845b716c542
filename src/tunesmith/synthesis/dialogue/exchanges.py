"""Utterances to rows: what was said to a person is the input, what they answer the output."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from tunesmith.synthesis.dialogue.novel import SOMEBODY
from tunesmith.synthesis.dialogue.speech import Person, Utterance
from tunesmith.synthesis.rows import Account, Failure, Row
from tunesmith.synthesis.texts import SourceText

if TYPE_CHECKING:
    from tunesmith.config.schema import RunConfig

NOBODY_SPOKE = "nobody spoke to them before"
UNCLEAR = "it is not clear who spoke before"
FAR = "what was said before is too far away"
_BREATH = 20
"""Characters of narration between two speeches that are still one."""
LONG = "the answer is too long"


@dataclass(frozen=True, slots=True)
class Turn:
    """What one side says until the other one speaks.

    Attributes:
        is_person: the person whose words are learned says it.
        utterances: in order.
    """

    is_person: bool
    utterances: tuple[Utterance, ...]

    @property
    def start(self) -> int:
        """First character."""
        return self.utterances[0].start

    @property
    def end(self) -> int:
        """Behind the last."""
        return self.utterances[-1].end

    @property
    def words(self) -> str:
        """All of it, one utterance a line."""
        return "\n".join(one.words for one in self.utterances)


@dataclass(frozen=True, slots=True)
class _Exchange:
    """Something said to the person, and their answer."""

    said: Turn
    answer: Turn


def rows_of(
    source: SourceText, place: int, utterances: Sequence[Utterance], person: Person, config: RunConfig
) -> Account[Row]:
    """The rows of a text; the account is of the person's turns, of which a row of a conversation holds several.

    Args:
        source: the text.
        place: of the text among all.
        utterances: in order, speakers told as far as they are clear.
        person: whose words the outputs are.
        config: of `data dialogue`.
    """
    turns = turns_of(utterances, person)
    groups = groups_of(source, utterances, config.dialogue_gap)
    account: Account[Row] = Account(0)
    conversations: list[list[_Exchange]] = []
    for index, turn in enumerate(turns):
        if not turn.is_person:
            continue
        before = turns[index - 1] if index else None
        fault = _fault(turn, before, config, source.text)
        if fault or before is None:
            group = groups[turn.start]
            account.failures.append(_failure(source, turn, (place, turn.start), group, fault or NOBODY_SPOKE))
            continue
        exchange = _Exchange(before, turn)
        if index >= 2 and conversations and _goes_on(conversations[-1], turns[index - 2], exchange, config.turns):
            conversations[-1].append(exchange)
        else:
            conversations.append([exchange])
    for talk in conversations:
        account.rows.append(_row(source, place, talk, groups[talk[-1].answer.start], config))
    account.requested = len(account.rows) + len(account.failures)
    return account


def groups_of(source: SourceText, utterances: Sequence[Utterance], gap: int) -> dict[int, str]:
    """Start of an utterance -> name of its conversation: a new one begins with a scene, or after a gap."""
    names: dict[int, str] = {}
    number = 0
    for before, one in zip([None, *utterances], utterances, strict=False):
        if before is None or before.scene != one.scene or one.start - before.end > gap:
            number += 1
        names[one.start] = f"{source.label}_{number:04d}"
    return names


def turns_of(utterances: Sequence[Utterance], person: Person) -> list[Turn]:
    """What each side says until the other one does; a scene ends a turn, and so does an unclear speaker."""
    turns: list[Turn] = []
    for one in utterances:
        is_person = person.is_called(one.speaker)
        before = turns[-1] if turns else None
        if before and _same_breath(before, one, is_person):
            turns[-1] = replace(before, utterances=(*before.utterances, one))
        else:
            turns.append(Turn(is_person, (one,)))
    return turns


def _same_breath(turn: Turn, one: Utterance, is_person: bool) -> bool:
    """Whether words go on with a turn: the same speaker, in the same scene, not far away."""
    last = turn.utterances[-1]
    if turn.is_person != is_person or last.scene != one.scene or one.start - last.end > _BREATH:
        return False
    return is_person or (last.speaker == one.speaker and last.speaker not in (None, SOMEBODY))


def _fault(turn: Turn, before: Turn | None, config: RunConfig, text: str) -> str | None:
    """Why a turn of the person answers nothing that can be given as input."""
    if len(turn.words) > config.max_answer_chars:
        return LONG
    if before is None or before.is_person or before.utterances[-1].scene != turn.utterances[0].scene:
        return NOBODY_SPOKE
    narrated = turn.start - before.end
    if narrated > config.dialogue_gap:
        return FAR
    last, first = before.utterances[-1], turn.utterances[0]
    if last.speaker is None and first.paragraph - last.paragraph != 1:
        return UNCLEAR  # in the paragraph right before, it is somebody else by the custom of prose
    return None


def _goes_on(talk: list[_Exchange], last: Turn, exchange: _Exchange, most: int) -> bool:
    """Whether an exchange continues a conversation."""
    is_next = talk[-1].answer is last
    same_scene = talk[-1].answer.utterances[0].scene == exchange.answer.utterances[0].scene
    return len(talk) < most and is_next and same_scene


def _row(source: SourceText, place: int, talk: list[_Exchange], group: str, config: RunConfig) -> Row:
    last = talk[-1].answer
    found = {one.found_by for turn in (talk[-1].said, last) for one in turn.utterances}
    return Row(
        id=f"{source.label}-{last.start:07d}",
        instruction="",
        input=talk[-1].said.words,
        output=last.words,
        source=source,
        start=last.start,
        end=last.end,
        group=group,
        kind=talk[-1].said.utterances[-1].speaker or SOMEBODY,
        system=config.row_system,
        history=tuple((exchange.said.words, exchange.answer.words) for exchange in talk[:-1]),
        found_by="model" if "model" in found else "rule",
        order=(place, last.start),
    )


def _failure(source: SourceText, turn: Turn, order: tuple[int, int], group: str, reason: str) -> Failure:
    identity = f"{source.label}-{turn.start:07d}"
    return Failure(identity, reason, source.name, group, "", "", turn.words[:500], order=order)
