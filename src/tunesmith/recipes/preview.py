"""`tunesmith data preview`: rows as the model sees them, trained text told apart from the rest."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any

from tunesmith.core.errors import DataError, Problem
from tunesmith.core.types import IGNORE_INDEX, Conversation, Example, Feedback, Preference, Source, Text, TokenizedRow
from tunesmith.recipes.data import load_encoder, require_names
from tunesmith.recipes.paint import Painter, token_texts

if TYPE_CHECKING:
    from tunesmith.config.schema import RunConfig
    from tunesmith.data.catalog import DatasetSpec
    from tunesmith.data.report import DatasetReport
    from tunesmith.data.sources import RawRow
    from tunesmith.data.tokenize import Encoder

_COUNT = 3


@dataclass(frozen=True, slots=True)
class Part:
    """One sequence of a row that the model reads.

    Attributes:
        title: what it is where a row has several; empty else.
        tokens: ids and labels.
    """

    title: str
    tokens: TokenizedRow


@dataclass(frozen=True, slots=True)
class SeenRow:
    """A row as the model sees it, or why it does not.

    Attributes:
        source: file and row.
        parts: what is read of it; none where there is a problem.
        label: what a KTO row is marked as; empty else.
        problem: why it cannot be used; empty where it can.
    """

    source: Source
    parts: tuple[Part, ...] = ()
    label: str = ""
    problem: str = ""


def see(config: RunConfig, encoder: Encoder, *, first: int = 1, count: int = _COUNT) -> list[SeenRow]:
    """Rows of the only data set that is named, in the order in which training reads them.

    Args:
        config: for the command `data`.
        encoder: of the configured model.
        first: place of the first one, from 1.
        count: rows at most; fewer where the data ends.

    Raises:
        DataError: the data set cannot be used at all. A bad row is no error here.
    """
    from tunesmith.data.examples import select_rows
    from tunesmith.data.pipeline import find_specs
    from tunesmith.data.report import DatasetReport

    spec = find_specs(config, require_names(config)[:1])[0]
    rows = select_rows(spec, config.max_samples, config.seed, DatasetReport(spec.name))
    return [_seen(row, spec, config.stage, encoder) for row in islice(rows, first - 1, first - 1 + count)]


def _seen(row: RawRow, spec: DatasetSpec, stage: str, encoder: Encoder) -> SeenRow:
    from tunesmith.core.errors import TemplateError
    from tunesmith.data.examples import book_example
    from tunesmith.data.report import DatasetReport, unwritable

    report = DatasetReport(spec.name)
    example = book_example(row, spec, stage, report)
    if example is None:
        return SeenRow(row.source, problem=str(report.rejects[0].problem()))
    try:
        return SeenRow(row.source, tuple(parts_of(example, encoder)), _label(example))
    except TemplateError as error:
        return SeenRow(row.source, problem=str(unwritable(Conversation((), source=row.source), error).problem()))


def _label(example: Example) -> str:
    if not isinstance(example, Feedback):
        return ""
    return "marked good" if example.is_desirable else "marked bad"


def preview(config: RunConfig, row: int | None = None, *, ids: bool = False) -> None:
    """Shows rows of each data set, rendered and tokenized.

    Args:
        config: for the command `data`.
        row: number of the only row, as the file counts; None: the first three.
        ids: token ids beside the text.

    Raises:
        DataError: a data set cannot be used, none of the rows can, or there is no such row.
    """
    from tunesmith.data.pipeline import find_specs

    names = require_names(config)
    encoder = load_encoder(config)
    screen = Screen(encoder.tokenizer, ids)
    screen.painter.legend()
    found = [_preview_set(spec, config, encoder, row, screen) for spec in find_specs(config, names)]
    if row is not None and not any(found):
        raise DataError([Problem(f"no data set has a row {row}", "--row", "rows count from 1; in JSONL, lines")])


def _preview_set(spec: DatasetSpec, config: RunConfig, encoder: Encoder, only: int | None, screen: Screen) -> bool:
    """Shows the rows of one data set; False where there was none to show."""
    from tunesmith.data.report import DatasetReport, raise_rejects

    report = DatasetReport(spec.name, path=str(spec.path))
    shown = 0
    for example in _chosen(spec, config, only, report):
        shown += _show(example, encoder, screen, report)
    for entry in report.rejects:
        screen.painter.note(f"rejected: {entry.problem()}")
    if not shown and report.rejected:
        raise_rejects([report])
    return bool(shown)


def _chosen(spec: DatasetSpec, config: RunConfig, only: int | None, report: DatasetReport) -> Iterator[Example]:
    """The first rows, or the one that was asked for; rows that are passed over are not booked."""
    from tunesmith.data.examples import book_example, read_examples, select_rows

    if only is None:
        yield from islice(read_examples(spec, config.stage, config.max_samples, config.seed, report), _COUNT)
        return
    for row in select_rows(spec, config.max_samples, config.seed, report):
        if row.source.row != only:
            continue
        example = book_example(row, spec, config.stage, report)
        if example is not None:
            yield example


def _show(example: Example, encoder: Encoder, screen: Screen, report: DatasetReport) -> bool:
    from tunesmith.core.errors import TemplateError
    from tunesmith.data.report import unwritable

    try:
        parts = parts_of(example, encoder)
    except TemplateError as error:
        report.reject(unwritable(Conversation((), source=example.source), error))
        return False
    for part in parts:
        title = ", ".join(filter(None, (f"{report.name}: {example.source}", _label(example), part.title)))
        screen.row(title, part.tokens)
    return True


def parts_of(example: Example, encoder: Encoder) -> list[Part]:
    """The sequences that the model reads of a row: one, or two of a pair.

    Raises:
        TemplateError: the template cannot write the row.
    """
    from tunesmith.data.examples import without_trailing
    from tunesmith.data.judged import tokenize_judged
    from tunesmith.data.render import render_prompt
    from tunesmith.data.texts import tokenize_texts
    from tunesmith.data.tokenize import tokenize

    if isinstance(example, Text):
        return [Part("", tokenize_texts(encoder, [example])[0])]
    if isinstance(example, Preference | Feedback):
        row = tokenize_judged(example, encoder)
        titles = ("chosen", "rejected") if row.second else ("",)
        parts = zip(titles, row.sequences(), strict=True)
        return [Part(title, TokenizedRow(ids, labels, row.source)) for title, (ids, labels) in parts]
    conversation = without_trailing(example)
    if not conversation.messages:
        segments = render_prompt(encoder.template, example, encoder.settings, encoder.names)
        return [Part("", TokenizedRow(*encoder.encode([segments])[0], example.source))]
    return [Part("", tokenize(encoder, [conversation], [encoder.segments(conversation)])[0])]


class Screen:
    """Where rows are shown."""

    def __init__(self, tokenizer: Any, ids: bool = False) -> None:
        self.tokenizer = tokenizer
        self.ids = ids
        self.painter = Painter()

    def row(self, title: str, row: TokenizedRow) -> None:
        """Shows one sequence."""
        share = f" ({100 * row.n_trained / len(row.input_ids):.0f} %)" if row.input_ids else ""
        lost = f", {row.lost_tokens} cut off by cutoff_len" if row.lost_tokens else ""
        self.painter.heading(f"{title}: {len(row.input_ids)} tokens, {row.n_trained} trained{share}{lost}")
        self.painter.stretches(stretches(row, self.tokenizer))
        if self.ids:
            self.painter.note("\n".join(self._id_lines(row)))

    def _id_lines(self, row: TokenizedRow) -> Iterator[str]:
        yield "  place      id   label  text"
        texts = token_texts(row.input_ids, self.tokenizer)
        for place, (token, label, text) in enumerate(zip(row.input_ids, row.labels, texts, strict=True)):
            shown = "" if label == IGNORE_INDEX else str(label)
            yield f"  {place:>5}  {token:>6}  {shown:>6}  {repr(text) if text else '...'}"


def stretches(row: TokenizedRow, tokenizer: Any) -> list[tuple[str, bool]]:
    """The row's text cut where training begins and ends: (text, trained)."""
    parts: list[tuple[list[int], bool]] = []
    for token, label in zip(row.input_ids, row.labels, strict=True):
        trained = label != IGNORE_INDEX
        if not parts or parts[-1][1] != trained:
            parts.append(([], trained))
        parts[-1][0].append(token)
    return [(tokenizer.decode(ids), trained) for ids, trained in parts]
