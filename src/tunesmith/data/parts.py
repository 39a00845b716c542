"""Data sets by row number: the rows that take part, and any of them as token ids, without those before it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from tunesmith.core.types import Example, Source, TokenizedRow
from tunesmith.data.booking import book_rows, end_ids
from tunesmith.data.catalog import DatasetSpec
from tunesmith.data.examples import book_example, say_unused, select_places
from tunesmith.data.raw_rows import RawRows
from tunesmith.data.report import DatasetReport
from tunesmith.data.rows import TokenizedRows

if TYPE_CHECKING:
    from tunesmith.config.schema import RunConfig
    from tunesmith.data.tokenize import Encoder


@dataclass(frozen=True, slots=True)
class Part:
    """One data set.

    Attributes:
        spec: what it is.
        rows: all its rows.
        places: those that take part, in order.
        stage: says what a row becomes.
        encoder: tokenizer, template, settings.
        ends: tokens that end an answer.
        left_out: rows of weight 0, which are not among `rows`.
    """

    spec: DatasetSpec
    rows: RawRows
    places: Any
    stage: str
    encoder: Encoder
    ends: frozenset[int]
    left_out: int = 0

    def __len__(self) -> int:
        return len(self.places)

    def source(self, index: int) -> Source:
        """Where the row number `index` of those that take part comes from."""
        return self.rows.source(int(self.places[index]))

    def new_report(self) -> DatasetReport:
        """An empty accounting."""
        return DatasetReport(self.spec.name, path=str(self.spec.path), left_out=self.left_out)

    def tokenize(self, indices: Sequence[int], report: DatasetReport) -> TokenizedRows:
        """The usable rows among those that take part, in order; all of them are booked."""
        found: list[Example] = []
        for index in indices:
            example = book_example(self.rows[int(self.places[index])], self.spec, self.stage, report)
            if example is not None:
                found.append(example)
        rows = book_rows(found, self.encoder, self.stage, report)
        report.keep(rows, self.ends)
        return rows


class Parts:
    """Data sets laid one after the other.

    Attributes:
        members: the data sets.
    """

    def __init__(self, members: Sequence[Part]) -> None:
        self.members = list(members)
        self._starts = np.cumsum([0, *map(len, members)])

    def __len__(self) -> int:
        return int(self._starts[-1])

    @property
    def sizes(self) -> list[int]:
        """Rows of each."""
        return [len(part) for part in self.members]

    @property
    def names(self) -> list[str]:
        """Names of each."""
        return [part.spec.name for part in self.members]

    def _locate(self, number: int) -> tuple[int, int]:
        which = int(np.searchsorted(self._starts, number, side="right")) - 1
        return which, int(number - self._starts[which])

    def source(self, number: int) -> Source:
        """Where a row comes from."""
        which, index = self._locate(number)
        return self.members[which].source(index)

    def sources(self) -> list[Source]:
        """Where each row comes from."""
        return [part.source(index) for part in self.members for index in range(len(part))]

    def tokenize(self, numbers: Iterable[int], reports: Sequence[DatasetReport]) -> dict[int, TokenizedRow]:
        """The usable rows among `numbers`, by number.

        Args:
            numbers: each once.
            reports: one for each data set; all rows are booked there.
        """
        located: list[dict[int, int]] = [{} for _ in self.members]
        for number in numbers:
            which, index = self._locate(number)
            located[which][number] = index
        found: dict[int, TokenizedRow] = {}
        for part, report, wanted in zip(self.members, reports, located, strict=True):
            if wanted:
                rows = {row.source: row for row in part.tokenize(list(wanted.values()), report)}
                sources = {number: part.source(index) for number, index in wanted.items()}
                found |= {number: rows[source] for number, source in sources.items() if source in rows}
        return found

    def new_reports(self) -> list[DatasetReport]:
        """An empty accounting for each."""
        return [part.new_report() for part in self.members]


def open_part(spec: DatasetSpec, config: RunConfig, encoder: Encoder) -> Part:
    """Counts the rows of a data set and chooses among them as the configuration says.

    Raises:
        DataError: the files cannot be read, hold no rows, or `split` selects none.
    """
    report = DatasetReport(spec.name)
    chooses = spec.split != "train" or spec.num_samples is not None
    rows = RawRows(spec, report, None if chooses else config.max_samples)
    places: Any = np.arange(len(rows))
    if chooses:
        places = np.asarray(select_places(spec, len(rows), config.seed), dtype=np.int64)
    places = places[: config.max_samples]
    first = rows[int(places[0])].value if len(places) else None
    if first is not None:
        say_unused(spec, first)
    return Part(spec, rows, places, config.stage, encoder, end_ids(encoder), report.left_out)
