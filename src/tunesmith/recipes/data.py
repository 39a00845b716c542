"""`tunesmith data preview` and `data check`: a configuration's data as the model would see it, without training."""

from __future__ import annotations

import sys
from itertools import islice
from typing import TYPE_CHECKING, Any

from tunesmith.core.errors import DataError, Problem
from tunesmith.core.types import IGNORE_INDEX, TokenizedRow

if TYPE_CHECKING:
    from tunesmith.config.schema import RunConfig
    from tunesmith.data.pipeline import Dataset
    from tunesmith.data.tokenize import Encoder

MARKS = ("⟦", "⟧")
"""Around trained text where the terminal has no colours."""


def preview(config: RunConfig, count: int = 3) -> None:
    """Shows the first rows of each data set, rendered and tokenized; trained text is coloured, or stands in marks.

    Raises:
        DataError: a data set cannot be used, or none of its first rows can.
    """
    from tunesmith.data.examples import read_conversations
    from tunesmith.data.pipeline import find_specs, render_rows
    from tunesmith.data.report import DatasetReport, raise_rejects
    from tunesmith.data.tokenize import tokenize

    names = _names(config)
    encoder = _encoder(config)
    for spec in find_specs(config, names):
        report = DatasetReport(spec.name)
        stream = read_conversations(spec, config.max_samples, config.seed, report)
        rows = tokenize(encoder, *render_rows(list(islice(stream, count)), encoder, report))
        for row in rows:
            show(row, encoder, f"{spec.name}: {row.source}")
        for entry in report.rejects:
            _say(f"rejected: {entry.problem()}")
        if not rows:
            raise_rejects([report])


def check(config: RunConfig) -> None:
    """Reads and tokenizes every row, and prints accounting, lengths, duplicates and the supervision report.

    Raises:
        DataError: rows cannot be used (unless `skip_bad_rows`), after everything was printed.
    """
    from tunesmith.data.pipeline import load_datasets, supervision_report
    from tunesmith.data.report import example_lines, raise_rejects
    from tunesmith.data.rows import TrainRows, concat_rows

    _names(config)
    encoder = _encoder(config)
    train_sets = load_datasets(config, encoder, config.dataset)
    eval_sets = load_datasets(config, encoder, config.eval_dataset)
    for dataset in (*train_sets, *eval_sets):
        _describe(dataset)
    reports = [report for _, report in (*train_sets, *eval_sets)]
    rows = concat_rows([part for part, _ in train_sets])
    report = supervision_report(reports, TrainRows(rows), sum(len(part) for part, _ in eval_sets))
    for line in report.lines()[len(reports) :]:
        _say(line)
    for line in report.warnings():
        _say(f"warning: {line}")
    if report.example is not None:
        _say("\n".join(example_lines(report.example, encoder.tokenizer.decode)))
    if not config.skip_bad_rows:
        raise_rejects(reports, config.allow_untrained_rows)


def _names(config: RunConfig) -> tuple[str, ...]:
    names = (*config.dataset, *config.eval_dataset)
    if not names:
        raise DataError(
            [Problem("no data set is named", "dataset", "set dataset: a name in dataset_info.json, or a file")]
        )
    return names


def _encoder(config: RunConfig) -> Encoder:
    from tunesmith.data.pipeline import make_encoder
    from tunesmith.models.tokenizer import load_template_for, load_tokenizer

    tokenizer = load_tokenizer(config)
    return make_encoder(config, tokenizer, load_template_for(config, tokenizer))


def _describe(dataset: Dataset) -> None:
    """Accounting, lengths and duplicates of one data set."""
    from tunesmith.data.report import duplicates, histogram

    rows, report = dataset
    _say(report.accounting())
    for line in histogram(rows.lengths):
        _say(f"  {line}")
    count, pair = duplicates(rows)
    _say(f"  exact duplicates: {count}" + (f", the first: {pair[1]} repeats {pair[0]}" if pair else ""))


def show(row: TokenizedRow, encoder: Encoder, title: str) -> None:
    """Prints one row: title, text with its trained stretches told apart, and what was cut off."""
    lost = f", {row.lost_tokens} tokens cut off" if row.lost_tokens else ""
    _say(f"{title}: {len(row.input_ids)} tokens, {row.n_trained} trained{lost}")
    parts = stretches(row, encoder.tokenizer)
    if sys.stdout.isatty():
        from rich.console import Console
        from rich.text import Text

        Console().print(
            Text.assemble(*[(text, "bold green" if trained else "dim") for text, trained in parts]), soft_wrap=True
        )
        return
    _say("".join(text.join(MARKS) if trained else text for text, trained in parts))


def stretches(row: TokenizedRow, tokenizer: Any) -> list[tuple[str, bool]]:
    """The row's text cut where training begins and ends: (text, trained)."""
    parts: list[tuple[list[int], bool]] = []
    for token, label in zip(row.input_ids, row.labels, strict=True):
        trained = label != IGNORE_INDEX
        if not parts or parts[-1][1] != trained:
            parts.append(([], trained))
        parts[-1][0].append(token)
    return [(tokenizer.decode(ids), trained) for ids, trained in parts]


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
