"""What became of the rows: accounting per data set, supervision report, one example in full."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import PurePath
from typing import Any

from tunesmith.core.errors import DataError, Problem
from tunesmith.core.types import IGNORE_INDEX, Conversation, Source, TokenizedRow
from tunesmith.data.rows import TokenizedRows

SHOWN_REJECTS = 20
NOTED_ROWS = 10
UNTRAINED = "no trained token is left"


@dataclass(frozen=True, slots=True)
class Reject:
    """A row that cannot be used."""

    source: Source
    column: str
    reason: str
    fix: str = ""

    def problem(self) -> Problem:
        """As the user reads it: file, row, column, reason, fix."""
        where = f"{self.source}, column {self.column}" if self.column else str(self.source)
        return Problem(self.reason, where, self.fix)


def kind_of_reject(entry: Reject) -> str:
    """Column and reason without what differs from row to row: list places, positions, excerpts."""
    column = re.sub(r"\[\d+\]", "[]", entry.column)
    reason = re.split(r": | at column ", entry.reason)[0]
    return f"{column}: {reason}" if column else reason


def rows_text(places: Sequence[tuple[str, int]], shown: int = 5) -> str:
    """(file, row) pairs for a reader: `row 3`, `rows 3, 7, 9, ...`; the file is named where there are several."""
    several = len({file for file, _ in places}) > 1
    words = [f"{file} {row}" if several else str(row) for file, row in places[:shown]]
    more = ", ..." if len(places) > shown else ""
    return f"row{'s' if len(words) > 1 else ''} {', '.join(words)}{more}"


def unwritable(row: Conversation, error: Exception) -> Reject:
    """The entry for a row that the template cannot write."""
    return Reject(row.source or Source("", 0), "", str(error), "change the row, or choose another template")


_COUNTS = (
    "read",
    "kept",
    "rejected",
    "truncated",
    "tokens",
    "trained_tokens",
    "lost_tokens",
    "lost_trained_tokens",
    "untrained",
    "open_answers",
    "cut_answers",
    "lost_headers",
    "lost_questions",
    "trailing",
    "masked_answers",
)
"""What of a report is added up."""


@dataclass(slots=True)
class DatasetReport:
    """The accounting of one data set; `read == kept + rejected` holds at any time.

    Attributes:
        truncated: kept rows that lost tokens.
        untrained: rejected rows whose only fault is that no trained token is left.
        open_answers: kept rows in which a trained answer does not close with an end token.
        cut_answers: of those, the rows that were cut: truncation took the end token away.
        lost_headers: kept rows whose budget was too small for the assistant's header.
        lost_questions: kept rows in which nothing is left of a message that an answer follows.
        left_out: rows of weight 0; they are not among the read ones.
        trailing: kept rows whose last messages follow the last answer and were left out.
        masked_answers: answers without loss, since the template writes them otherwise once more follows.
        placeholders: unreplaced `{{name}}`, by name.
        path: file or folder of the data set.
        rejects: the first rejected rows; those without a trained token do not crowd out the others.
        reasons: rejected rows by reason.
        places: (file, row) of the first rows of each kind: `open`, `cut`, `header`, `question`, and `rejected: ` with
            the reason.
    """

    name: str
    read: int = 0
    kept: int = 0
    rejected: int = 0
    truncated: int = 0
    tokens: int = 0
    trained_tokens: int = 0
    lost_tokens: int = 0
    lost_trained_tokens: int = 0
    longest: int = 0
    untrained: int = 0
    open_answers: int = 0
    cut_answers: int = 0
    lost_headers: int = 0
    lost_questions: int = 0
    trailing: int = 0
    masked_answers: int = 0
    placeholders: dict[str, int] = field(default_factory=dict)
    path: str = ""
    rejects: list[Reject] = field(default_factory=list)
    reasons: dict[str, int] = field(default_factory=dict)
    left_out: int = 0
    places: dict[str, list[tuple[str, int]]] = field(default_factory=dict)

    def reject(self, entry: Reject) -> None:
        """Books a rejected row."""
        self.rejected += 1
        self.untrained += entry.reason == UNTRAINED
        kind = kind_of_reject(entry)
        self.reasons[kind] = self.reasons.get(kind, 0) + 1
        self.note(f"rejected: {kind}", entry.source)
        self._show(entry)

    def _show(self, entry: Reject) -> None:
        alike = sum((seen.reason == UNTRAINED) == (entry.reason == UNTRAINED) for seen in self.rejects)
        if alike < SHOWN_REJECTS:
            self.rejects.append(entry)

    def note(self, kind: str, source: Source) -> None:
        """Remembers where a row of this kind is; the first few are enough."""
        places = self.places.setdefault(kind, [])
        if len(places) < NOTED_ROWS:
            places.append((source.file, source.row))

    def note_cut(self, source: Source, lost_header: bool, lost_question: bool) -> None:
        """Books what truncation took away beside tokens."""
        self.lost_headers += lost_header
        self.lost_questions += lost_question
        for kind, lost in (("header", lost_header), ("question", lost_question)):
            if lost:
                self.note(kind, source)

    def keep(self, rows: TokenizedRows, ends: frozenset[int] = frozenset()) -> None:
        """Books kept rows with their tokens; an answer is closed by one of `ends`."""
        if not len(rows):
            return
        trained = rows.n_trained
        self.kept += len(rows)
        self.tokens += rows.n_tokens
        self.trained_tokens += int(trained.sum())
        self.truncated += int((rows.lost[:, 0] > 0).sum())
        self.lost_tokens += int(rows.lost[:, 0].sum())
        self.lost_trained_tokens += int(rows.lost[:, 1].sum())
        self.longest = max(self.longest, int(rows.lengths.max()))
        for index in rows.open_rows(ends).tolist():
            is_cut = bool(rows.lost[index, 0])
            self.open_answers += 1
            self.cut_answers += is_cut
            self.note("cut" if is_cut else "open", rows.source(index))

    def merge(self, later: DatasetReport) -> None:
        """Adds the accounting of rows that follow."""
        for name in _COUNTS:
            setattr(self, name, getattr(self, name) + getattr(later, name))
        self.longest = max(self.longest, later.longest)
        for counts, more in ((self.placeholders, later.placeholders), (self.reasons, later.reasons)):
            for name, count in more.items():
                counts[name] = counts.get(name, 0) + count
        for entry in later.rejects:
            self._show(entry)
        for kind, places in later.places.items():
            for file, row in places:
                self.note(kind, Source(file, row))

    def first(self, kind: str) -> str:
        """The first rows of a kind, as a reader wants them: `row 3`, `rows 3, 7, 9`."""
        return rows_text(self.places.get(kind, []))

    def accounting(self) -> str:
        """The line that is always printed."""
        line = f"{self.name}: read {self.read}, kept {self.kept}, rejected {self.rejected}, truncated {self.truncated}"
        return line + (f", left out {self.left_out} of weight 0" if self.left_out else "")


def raise_rejects(reports: Iterable[DatasetReport], allow_untrained_rows: bool = False) -> None:
    """Stops with the first rejected rows of all data sets and the total.

    Args:
        reports: accounting of the data sets.
        allow_untrained_rows: rows without a trained token are left out and do not stop.

    Raises:
        DataError: at least one row was rejected.
    """
    bad = [report for report in reports if report.rejected - allow_untrained_rows * report.untrained]
    files: dict[str, int] = {}
    total = sum(report.rejected - allow_untrained_rows * report.untrained for report in bad)
    if not total:
        return
    faults = [
        entry for report in bad for entry in report.rejects if not (allow_untrained_rows and entry.reason == UNTRAINED)
    ]
    faults.sort(key=lambda entry: (files.setdefault(entry.source.file, len(files)), entry.source.row))
    shown = faults[:SHOWN_REJECTS]
    problems = [entry.problem() for entry in shown]
    sums = "; ".join(report.accounting() for report in bad)
    fix = "mend the rows, or set skip_bad_rows: true to train without them"
    rest = f"the first {len(shown)} of them are above" if total > len(shown) else "all of them are above"
    problems.append(Problem(f"{total} rows cannot be used; {rest} ({sums})", "", fix))
    raise DataError(problems)


@dataclass(slots=True)
class SupervisionReport:
    """What a run is about to learn from.

    Attributes:
        datasets: accounting of each data set, training first.
        train_rows: rows to train on, after the validation split.
        eval_rows: rows to evaluate on.
        train_items: items the trainer sees (packs, where packing).
        tokens: tokens of the training rows.
        trained_tokens: of those, the ones that carry loss.
        longest: tokens of the longest training row, and where it comes from.
        example: the first training row.
    """

    datasets: list[DatasetReport]
    train_rows: int = 0
    eval_rows: int = 0
    train_items: int = 0
    tokens: int = 0
    trained_tokens: int = 0
    longest: tuple[int, Source | None] = (0, None)
    example: TokenizedRow | None = None

    def lines(self) -> list[str]:
        """The report without the example."""
        found = [report.accounting() for report in self.datasets]
        if self.train_rows:
            share = 100 * self.trained_tokens / max(self.tokens, 1)
            found.append(
                f"training rows: {self.train_rows:,}; tokens: {self.tokens:,}; "
                f"trained tokens: {self.trained_tokens:,} ({share:.1f} %)"
            )
            found.append(
                f"longest row: {self.longest[0]:,} tokens ({self.longest[1]}); mean {self.tokens / self.train_rows:.1f}"
            )
        if self.train_items != self.train_rows:
            found.append(f"packed into {self.train_items:,} items")
        if self.eval_rows:
            found.append(f"evaluation rows: {self.eval_rows:,}")
        for report in self.datasets:
            if report.truncated:
                lost = f"{report.lost_tokens:,} tokens lost, {report.lost_trained_tokens:,} of them trained"
                found.append(f"{report.name}: {report.truncated:,} rows cut to cutoff_len, {lost}")
            if len(self.datasets) > 1:
                found.append(
                    f"{report.name}: {report.tokens:,} tokens, {report.trained_tokens:,} trained, "
                    f"longest row {report.longest:,}"
                )
        return found

    def warnings(self) -> list[str]:
        """What the user should look at before training."""
        return [line for report in self.datasets for line in dataset_warnings(report)]


def dataset_warnings(report: DatasetReport) -> Iterator[str]:
    """One line for each thing about a data set that is allowed, but rarely meant."""
    name = report.name
    if report.rejected:
        top = Counter(report.reasons).most_common(3)
        yield f"{name}: {report.rejected} rows are left out: " + "; ".join(
            f"{count}x {reason} ({report.first(f'rejected: {reason}')})" for reason, count in top
        )
    if report.cut_answers:
        where = f"an answer lost its end token to cutoff_len ({report.first('cut')})"
        yield f"{name}: in {report.cut_answers} rows {where}: the model does not learn to stop there; raise cutoff_len"
    if uncut := report.open_answers - report.cut_answers:
        where = f"an answer has no end token ({report.first('open')})"
        yield f"{name}: in {uncut} rows {where}: the model does not learn to stop there; check the template"
    yield from cut_warnings(report)
    if report.trailing:
        yield f"{name}: {report.trailing} rows end with tool results, which carry no loss: these are left out"
    if report.masked_answers:
        yield (
            f"{name}: {report.masked_answers} earlier answers carry no loss: the model's template writes them, or what "
            "comes before them, otherwise once more turns follow; a row for each answer learns them all"
        )
    if report.placeholders:
        yield f"{name}: {_placeholder_advice(report)}"


def cut_warnings(report: DatasetReport) -> Iterator[str]:
    """Rows whose prompts were cut so far that the answer follows something else."""
    if report.lost_headers:
        where = f"rows were cut into the assistant's header ({report.first('header')})"
        yield f"{report.name}: {report.lost_headers} {where}: raise cutoff_len"
    if report.lost_questions:
        where = f"nothing is left of what was asked before an answer ({report.first('question')})"
        yield f"{report.name}: in {report.lost_questions} rows {where}: raise cutoff_len"


def _placeholder_advice(report: DatasetReport) -> str:
    total = sum(report.placeholders.values())
    names = ", ".join(f"{{{{{key}}}}} {count}x" for key, count in report.placeholders.items())
    edits = "; ".join(f"s/{{{{{key}}}}}/YOUR {key.upper()}/g" for key in report.placeholders)
    copy = f"my_{PurePath(report.path).name or 'data.json'}"
    how = f"sed '{edits}' {report.path or 'FILE'} > {copy}, then dataset: {copy}"
    return (
        f"{total} placeholders are not replaced ({names}), the model learns them as they stand; to replace them: {how}"
    )


def example_lines(row: TokenizedRow, decode: Callable[[list[int]], str]) -> list[str]:
    """One row in full: ids and text of the inputs, ids and text of the labels; of a pair, both answers."""
    lines = []
    names = ("", ", second sequence")
    for name, (ids, labels) in zip(names, row.sequences(), strict=False):
        lines += [
            f"training example{name}:",
            "input_ids:",
            str(ids),
            "inputs:",
            decode(ids),
            "label_ids:",
            str(labels),
            "labels:",
            decode([label for label in labels if label != IGNORE_INDEX]),
        ]
    return lines


def log_report(report: SupervisionReport, decode: Callable[[list[int]], str], logger: Any) -> None:
    """Prints the report, its warnings and the example."""
    for line in report.lines():
        logger.info(line)
    for line in report.warnings():
        logger.warning(line)
    if report.example is not None:
        logger.info("\n".join(example_lines(report.example, decode)))
