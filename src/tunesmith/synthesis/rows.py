"""What comes out: rows that say where they stand in the source, failures that say why, and their accounting."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from tunesmith.synthesis.texts import SourceText


@dataclass(frozen=True, slots=True)
class Row:
    """One row of the data set.

    Attributes:
        id: of no other row.
        instruction: the question or task.
        output: the answer.
        source: the text it stands on.
        start: of the quote.
        end: of the quote.
        group: the chunk or the scene; rows of one group stay on one side of the split.
        kind: how it was asked, or who speaks.
        input: what was said to the person, for dialogue.
        system: system prompt.
        history: earlier (question, answer) pairs.
        found_by: who found the quote or the speaker: model or rule.
        order: (number of the group, number in it): rows are written in this order.
    """

    id: str
    instruction: str
    output: str
    source: SourceText
    start: int
    end: int
    group: str
    kind: str
    input: str = ""
    system: str | None = None
    history: tuple[tuple[str, str], ...] = ()
    found_by: str = "rule"
    order: tuple[int, int] = (0, 0)

    @property
    def quote(self) -> str:
        """The words of the source."""
        return self.source.text[self.start : self.end]

    @property
    def asked(self) -> str:
        """All that the answer answers."""
        return "\n".join(part for part in (self.instruction, self.input) if part)

    def as_dict(self) -> dict[str, Any]:
        """The columns: alpaca's first, then where it comes from."""
        columns: dict[str, Any] = {"instruction": self.instruction, "input": self.input, "output": self.output}
        if self.system is not None:
            columns["system"] = self.system
        if self.history:
            columns["history"] = [list(pair) for pair in self.history]
        columns |= {"id": self.id, "kind": self.kind, "chunk": self.group, "file": str(self.source.file)}
        if self.source.document:
            columns["document"] = str(self.source.document)
        return columns | {"start": self.start, "end": self.end, "quote": self.quote, "found_by": self.found_by}


@dataclass(frozen=True, slots=True)
class Failure:
    """What was asked for and did not become a row.

    Attributes:
        id: that the row would have had.
        reason: in few words, the same for all of a kind.
        file: the text.
        group: chunk or scene.
        kind: how it was asked, or who speaks.
        detail: what was seen.
        text: the words that were rejected, if there were any.
        attempts: times that it was asked for.
        order: as of a row.
    """

    id: str
    reason: str
    file: str
    group: str
    kind: str = ""
    detail: str = ""
    text: str = ""
    attempts: int = 1
    order: tuple[int, int] = (0, 0)

    def as_dict(self) -> dict[str, Any]:
        """All of it but the order."""
        names = ("id", "reason", "detail", "file", "group", "kind", "attempts", "text")
        return {name: getattr(self, name) for name in names}


@dataclass(frozen=True, slots=True)
class Pair:
    """Two answers to the question of a row, and which is better.

    Attributes:
        row: it answers this.
        chosen: the better answer.
        rejected: the worse one.
        judged_by: rule or model.
    """

    row: Row
    chosen: str
    rejected: str
    judged_by: str

    @property
    def order(self) -> tuple[int, int]:
        """As of its row."""
        return self.row.order

    def as_dict(self) -> dict[str, Any]:
        """The columns: those of the row with two answers for one."""
        columns = self.row.as_dict()
        del columns["output"]
        return columns | {"chosen": self.chosen, "rejected": self.rejected, "judged_by": self.judged_by}


Kept = TypeVar("Kept", Row, Pair)


@dataclass(slots=True)
class Account(Generic[Kept]):
    """What became of everything that was asked for.

    Attributes:
        requested: entries that were asked for, utterances that were found, or pairs.
        rows: those that were kept.
        failures: those that were not.
    """

    requested: int
    rows: list[Kept] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)

    def take(self, results: Iterable[Kept | Failure]) -> None:
        """Books results."""
        for result in results:
            if isinstance(result, Failure):
                self.failures.append(result)
            else:
                self.rows.append(result)

    def settle(self) -> None:
        """Puts all in order and proves that nothing is missing."""
        self.rows.sort(key=lambda row: row.order)
        self.failures.sort(key=lambda failure: failure.order)
        assert self.requested == len(self.rows) + len(self.failures), "the accounting does not add up"

    @property
    def reasons(self) -> list[tuple[str, int]]:
        """(reason, how often), most frequent first."""
        return Counter(failure.reason for failure in self.failures).most_common()

    def line(self) -> str:
        """The accounting in one line."""
        return f"requested {self.requested:,} = kept {len(self.rows):,} + failed {len(self.failures):,}"
