"""The bundled probe: items in six fields, by which a model is held against itself before tuning; how they are asked."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib import resources
from typing import TYPE_CHECKING, Any

from tunesmith.evaluation.continuations import score_answers, split_text
from tunesmith.inference.engine import Engine

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

FIELDS = ("knowledge", "arithmetic", "common_sense", "instruction", "language", "chinese")
_WIDE = ("\u2e80", "\uffef")


@dataclass(frozen=True, slots=True)
class ProbeItem:
    """A text, or a beginning with several ways to go on.

    Attributes:
        id: names it.
        field: what it is about.
        prompt: what stands before the answers; empty: the only answer is a text of its own.
        answers: ways to go on, the right one first.
    """

    id: str
    field: str
    prompt: str
    answers: tuple[str, ...]

    def tokens(self, tokenizer: PreTrainedTokenizerBase) -> tuple[list[int], tuple[tuple[int, ...], ...]]:
        """Ids of the prompt and of each answer; of a text the first token is the prompt."""
        if not self.prompt:
            ids = list(tokenizer.encode(self.answers[0]))
            return ids[:1], (tuple(ids[1:]),)
        last = self.prompt[-1]
        blank = "" if last.isspace() or _WIDE[0] <= last <= _WIDE[1] else " "
        pairs = [split_text(tokenizer, self.prompt, blank + answer) for answer in self.answers]
        return pairs[0][0], tuple(answer for _, answer in pairs)


@dataclass(frozen=True, slots=True)
class ProbeScore:
    """What a model makes of an item.

    Attributes:
        id: of the item.
        field: of the item.
        logps: log-probability (nats) of each answer, the right one first.
        n_tokens: of the right answer.
    """

    id: str
    field: str
    logps: tuple[float, ...]
    n_tokens: int

    @property
    def worth(self) -> float:
        """How well the model knows the item, in nats; 0 is perfect.

        The log-probability of the right answer given that one of the answers comes; of a text, that of a token in the
        mean. The first does not change with a model's style, the second does, which is what language is about.
        """
        if len(self.logps) == 1:
            return self.logps[0] / self.n_tokens
        highest = max(self.logps)
        return self.logps[0] - highest - math.log(sum(math.exp(value - highest) for value in self.logps))

    @property
    def is_right(self) -> bool | None:
        """Whether the right answer is the likeliest; None of a text."""
        return None if len(self.logps) == 1 else self.logps[0] == max(self.logps)

    def as_row(self) -> dict[str, Any]:
        """As it is written."""
        return {"id": self.id, "field": self.field, "logps": list(self.logps), "n_tokens": self.n_tokens}

    @classmethod
    def of_row(cls, row: dict[str, Any]) -> ProbeScore:
        """The way back of `as_row`."""
        return cls(row["id"], row["field"], tuple(row["logps"]), row["n_tokens"])


def load_probe() -> list[ProbeItem]:
    """All items, field by field."""
    items = []
    for field in FIELDS:
        text = resources.files("tunesmith.evaluation").joinpath("probe", f"{field}.jsonl").read_text("utf-8")
        for row in map(json.loads, text.splitlines()):
            answers = (row["text"],) if "text" in row else (row["answer"], *row["wrong"])
            items.append(ProbeItem(row["id"], field, row.get("prompt", ""), answers))
    return items


def ask_probe(engine: Engine, tokenizer: PreTrainedTokenizerBase, items: Sequence[ProbeItem]) -> Iterator[ProbeScore]:
    """Yields the score of each item, in any order; plain text, no template, so style weighs little.

    Raises:
        ModelError: the model's context is too short.
    """
    asked = [item.tokens(tokenizer) for item in items]
    for index, found in score_answers(engine, asked):
        item = items[index]
        logps = tuple(round(math.fsum(values), 6) for values in found)
        yield ProbeScore(item.id, item.field, logps, len(asked[index][1][0]))
