"""Rows that repeat each other: exact and near duplicates of a data set, evaluation rows that training has seen."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

from tunesmith.core.types import Conversation, Example, Feedback, Message, Preference, Source, Text
from tunesmith.data.checks.near import Sketches

Kind = Literal["exact", "near", "prompt"]
SHOWN_PAIRS = 20
_NOWHERE = Source("", 0)


@dataclass(frozen=True, slots=True)
class Pair:
    """A row and the row that it repeats.

    Attributes:
        row: the later row, or the row of the evaluation data.
        like: the row that it repeats.
        similarity: share of common shingles; 1 where all counts.
    """

    row: Source
    like: Source
    similarity: float = 1.0


@dataclass(slots=True)
class Matches:
    """Rows that repeat others: how many, and the first of them."""

    count: int = 0
    pairs: list[Pair] = field(default_factory=list)

    def add(self, pair: Pair) -> None:
        """Counts one row."""
        self.count += 1
        if len(self.pairs) < SHOWN_PAIRS:
            self.pairs.append(pair)


class Texts:
    """What must be known of each row to find it again: two short hashes, a sketch, its place."""

    def __init__(self) -> None:
        self.sources: list[Source] = []
        self.wholes: list[bytes] = []
        self.prompts: list[bytes] = []
        self.sketches = Sketches()

    def __len__(self) -> int:
        return len(self.sources)

    def add(self, example: Example) -> None:
        """Takes the next row."""
        prompt, answers = parts_of(example)
        self.sources.append(example.source or _NOWHERE)
        self.wholes.append(_hash(prompt, answers, _verdict(example)))
        self.prompts.append(_hash(prompt) if prompt else b"")
        self.sketches.add("\n".join(_spoken(prompt, answers)), group=int(_verdict(example)))

    def take(self, indices: Iterable[int]) -> Texts:
        """Some of the rows."""
        part = Texts()
        for index in indices:
            part.sources.append(self.sources[index])
            part.wholes.append(self.wholes[index])
            part.prompts.append(self.prompts[index])
            part.sketches.rows.append(self.sketches.rows[index])
            part.sketches.buckets.append(self.sketches.buckets[index])
        return part

    def extend(self, other: Texts) -> None:
        """Takes all rows of another data set."""
        self.sources += other.sources
        self.wholes += other.wholes
        self.prompts += other.prompts
        self.sketches.rows += other.sketches.rows
        self.sketches.buckets += other.sketches.buckets


def parts_of(example: Example) -> tuple[tuple[Any, ...], tuple[Message, ...]]:
    """(everything up to the answer, tools and system included; the answers); a plain text is its own answer."""
    if isinstance(example, Text):
        return (), (Message("assistant", example.text),)
    if isinstance(example, Preference):
        return _asked(example.prompt, example.prompt.messages), (example.chosen, example.rejected)
    conversation = example.conversation if isinstance(example, Feedback) else example
    *before, last = conversation.messages
    if last.role != "assistant":
        return _asked(conversation, conversation.messages), ()
    return _asked(conversation, tuple(before)), (last,)


def _asked(conversation: Conversation, messages: tuple[Message, ...]) -> tuple[Any, ...]:
    return (*messages, *(conversation.tools or ()))


def _verdict(example: Example) -> bool:
    return isinstance(example, Feedback) and example.is_desirable


def _hash(*parts: Any) -> bytes:
    return hashlib.blake2b(repr(parts).encode("utf-8", "surrogatepass"), digest_size=16).digest()


def _spoken(prompt: tuple[Any, ...], answers: tuple[Message, ...]) -> Iterator[str]:
    """What is compared for nearness: no system text and no tools, which long sets share in every row."""
    for message in (*prompt, *answers):
        if isinstance(message, Message) and message.role != "system":
            yield message.content
            yield from (f"{call.name} {call.arguments}" for call in message.tool_calls)


def find_repeats(texts: Texts) -> tuple[Matches, Matches]:
    """(exact duplicates, near duplicates) within one data set; a row counts once, in the stronger kind.

    The same row of a file, drawn twice by `num_samples`, repeats nothing.
    """
    exact, near = Matches(), Matches()
    seen: dict[bytes, int] = {}
    repeated = set()
    for index, (whole, source) in enumerate(zip(texts.wholes, texts.sources, strict=True)):
        first = seen.setdefault(whole, index)
        if first != index:
            repeated.add(index)
            if texts.sources[first] != source:
                exact.add(Pair(source, texts.sources[first]))
    for index, like, share in texts.sketches.repeats():
        if index not in repeated:
            near.add(Pair(texts.sources[index], texts.sources[like], share))
    return exact, near


def find_leaks(evaluation: Texts, training: Texts) -> dict[Kind, Matches]:
    """Evaluation rows that training has seen: the whole row, nearly the row, or its prompt with another answer."""
    found: dict[Kind, Matches] = {"exact": Matches(), "near": Matches(), "prompt": Matches()}
    wholes = dict(zip(reversed(training.wholes), reversed(training.sources), strict=True))
    prompts = dict(zip(reversed(training.prompts), reversed(training.sources), strict=True))
    near = {index: (like, share) for index, like, share in evaluation.sketches.found_in(training.sketches)}
    for index, source in enumerate(evaluation.sources):
        if like := wholes.get(evaluation.wholes[index]):
            found["exact"].add(Pair(source, like))
        elif index in near:
            place, share = near[index]
            found["near"].add(Pair(source, training.sources[place], share))
        elif evaluation.prompts[index] and (like := prompts.get(evaluation.prompts[index])):
            found["prompt"].add(Pair(source, like))
    return found
