"""Health of judged data: pairs of answers (rm, dpo) and answers marked good or bad (kto)."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

from tunesmith.core.types import Conversation, Feedback, Message, Preference, Source
from tunesmith.data.report import NOTED_ROWS, rows_text

LONGER_SHARE = 0.7
"""From this share of pairs on in which one side is the longer one, length alone tells the sides apart."""
LONGER_MEAN = 1.5
"""The same for the mean length of one side over that of the other."""
FEWEST_PAIRS = 10
MOST_TO_ONE = 4.0
"""Good to bad answers, or the other way round, from which on the labels are called unbalanced."""


@dataclass(slots=True)
class Rows:
    """How many rows, and where the first of them are."""

    count: int = 0
    first: list[tuple[str, int]] = field(default_factory=list)

    def add(self, source: Source | None) -> None:
        """Counts one row."""
        self.count += 1
        if source and len(self.first) < NOTED_ROWS:
            self.first.append((source.file, source.row))

    def __str__(self) -> str:
        return f"{self.count} ({rows_text(self.first)})" if self.first else str(self.count)


@dataclass(slots=True)
class PairHealth:
    """Pairs of a preference set.

    Attributes:
        pairs: how many.
        identical: pairs whose two answers are the same.
        empty: pairs in which an answer is empty.
        contradictions: pairs that an earlier row holds the other way round.
        chosen_tokens: tokens of all chosen answers.
        rejected_tokens: tokens of all rejected answers.
        chosen_longer: pairs whose chosen answer is the longer one.
        rejected_longer: pairs whose rejected answer is the longer one.
    """

    pairs: int = 0
    identical: Rows = field(default_factory=Rows)
    empty: Rows = field(default_factory=Rows)
    contradictions: Rows = field(default_factory=Rows)
    chosen_tokens: int = 0
    rejected_tokens: int = 0
    chosen_longer: int = 0
    rejected_longer: int = 0
    seen: set[bytes] = field(default_factory=set, repr=False)

    def add(self, example: Preference, chosen_tokens: int, rejected_tokens: int) -> None:
        """Takes the next pair with the lengths of its answers."""
        self.pairs += 1
        self.chosen_tokens += chosen_tokens
        self.rejected_tokens += rejected_tokens
        self.chosen_longer += chosen_tokens > rejected_tokens
        self.rejected_longer += rejected_tokens > chosen_tokens
        answers = (_bare(example.chosen), _bare(example.rejected))
        if answers[0] == answers[1]:
            self.identical.add(example.source)
        if not all(message.content or message.tool_calls for message in answers):
            self.empty.add(example.source)
        if answers[0] != answers[1] and _key(example.prompt, *reversed(answers)) in self.seen:
            self.contradictions.add(example.source)
        self.seen.add(_key(example.prompt, *answers))

    @property
    def means(self) -> tuple[float, float]:
        """Mean tokens of chosen and of rejected answers."""
        return self.chosen_tokens / max(self.pairs, 1), self.rejected_tokens / max(self.pairs, 1)

    def warnings(self) -> Iterator[str]:
        """What to look at before training on the pairs."""
        if self.identical.count:
            yield f"chosen and rejected are the same in {self.identical} pairs: they teach nothing"
        if self.empty.count:
            yield f"an answer is empty in {self.empty} pairs"
        if self.contradictions.count:
            yield f"{self.contradictions} pairs stand the other way round in an earlier row: they cancel each other"
        chosen, rejected = self.means
        longer, shorter = max(chosen, rejected), min(chosen, rejected)
        name, count = ("chosen", self.chosen_longer) if chosen >= rejected else ("rejected", self.rejected_longer)
        share = count / max(self.pairs, 1)
        if self.pairs >= FEWEST_PAIRS and (share >= LONGER_SHARE or longer >= LONGER_MEAN * max(shorter, 1)):
            yield (
                f"{name} answers are the longer ones in {share:.0%} of the pairs (mean {chosen:.0f} tokens chosen, "
                f"{rejected:.0f} rejected): the model can learn length instead of quality"
            )


@dataclass(slots=True)
class LabelHealth:
    """Labels of a KTO set.

    Attributes:
        desirable: rows marked good.
        undesirable: rows marked bad.
        contradictions: rows that an earlier row marks the other way.
        empty: rows with an empty answer.
    """

    desirable: int = 0
    undesirable: int = 0
    contradictions: Rows = field(default_factory=Rows)
    empty: Rows = field(default_factory=Rows)
    seen: dict[bytes, bool] = field(default_factory=dict, repr=False)

    def add(self, example: Feedback) -> None:
        """Takes the next row."""
        self.desirable += example.is_desirable
        self.undesirable += not example.is_desirable
        last = example.conversation.messages[-1]
        if not last.content and not last.tool_calls:
            self.empty.add(example.source)
        if self.seen.setdefault(_key(example.conversation), example.is_desirable) != example.is_desirable:
            self.contradictions.add(example.source)

    def warnings(self) -> Iterator[str]:
        """What to look at before training on the labels."""
        more, fewer = max(self.desirable, self.undesirable), min(self.desirable, self.undesirable)
        name = "good" if self.desirable >= self.undesirable else "bad"
        if not fewer and more:
            yield f"every row is marked {name}: there is nothing to tell apart (is the right column named as kto_tag?)"
        elif more > MOST_TO_ONE * fewer:
            yield (
                f"{self.desirable} rows are marked good, {self.undesirable} bad: more than {MOST_TO_ONE:g} to 1; "
                "weigh them with kto_chosen_weight and kto_rejected_weight"
            )
        if self.contradictions.count:
            yield f"the same answer is marked good and bad in {self.contradictions} rows"
        if self.empty.count:
            yield f"the answer is empty in {self.empty} rows"


def _bare(message: Message) -> Message:
    """The answer as it is compared: blanks around it and its loss flag do not make another answer."""
    return replace(message, content=message.content.strip(), trained=None)


def _key(conversation: Conversation, *answers: Message) -> bytes:
    parts: Any = (conversation.messages, conversation.tools, answers)
    return hashlib.blake2b(repr(parts).encode("utf-8", "surrogatepass"), digest_size=16).digest()
