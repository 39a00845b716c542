"""Tokenized rows as the trainer takes them: items to train on, sets to evaluate on, and the report on both."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from tunesmith.core.errors import DataError
from tunesmith.core.log import get_logger
from tunesmith.data.catalog import is_file_name
from tunesmith.data.dataset import Dataset
from tunesmith.data.formats import KIND_OF_STAGE
from tunesmith.data.mismatch import JudgedRows
from tunesmith.data.pack import best_fit
from tunesmith.data.report import DatasetReport, SupervisionReport, raise_rejects
from tunesmith.data.rows import TokenizedRows, TrainRows, concat_rows
from tunesmith.data.texts import TextRows, text_start
from tunesmith.data.tokenize import Encoder

if TYPE_CHECKING:
    from tunesmith.config.schema import RunConfig

logger = get_logger(__name__)


def stop_on_rejects(reports: list[DatasetReport], config: RunConfig) -> None:
    """Prints the accounting and stops where rows were rejected, unless the configuration lets them go.

    Raises:
        DataError: the first rejected rows, and how many there are.
    """
    if config.skip_bad_rows:
        return
    try:
        raise_rejects(reports, config.allow_untrained_rows)
    except DataError:
        for report in reports:
            logger.info(report.accounting())
        raise


def items_of(config: RunConfig, encoder: Encoder, rows: TokenizedRows, *, may_pack: bool = True) -> TrainRows:
    """Rows as the trainer takes them, by what the stage reads."""
    kind = KIND_OF_STAGE[config.stage]
    if kind == "text":
        is_packed = config.packing is not False
        return TextRows(rows, config.cutoff_len, text_start(encoder.tokenizer), is_packed=is_packed)
    if kind == "feedback":
        return JudgedRows(rows, config.cutoff_len)
    return TrainRows(rows, _packs(config, rows) if may_pack else None)


def _packs(config: RunConfig, rows: TokenizedRows) -> list[list[int]] | None:
    if not (config.packing or config.neat_packing):
        return None
    lengths = rows.lengths
    return best_fit(lengths.tolist(), max(config.cutoff_len, int(lengths.max(initial=0))))


def eval_rows_of(
    config: RunConfig, sets: list[Dataset], held_out: TokenizedRows | None
) -> TokenizedRows | dict[str, TokenizedRows] | None:
    """Rows to evaluate on: of the evaluation sets and what `val_size` holds out, or each set by its name."""
    if not sets:
        return held_out
    if not config.eval_on_each_dataset:
        parts = [part for part, _ in sets]
        return concat_rows(parts if held_out is None else [*parts, held_out])
    grouped: dict[str, list[TokenizedRows]] = {}
    for part, report in sets:
        name = Path(report.name).stem if is_file_name(report.name) else report.name
        grouped.setdefault(name, []).append(part)
    return {name: concat_rows(members) for name, members in grouped.items()}


def evaluation_of(
    config: RunConfig, encoder: Encoder, rows: TokenizedRows | dict[str, TokenizedRows] | None
) -> tuple[TrainRows | dict[str, TrainRows] | None, int]:
    """Rows to evaluate on as the trainer takes them, and how many they are."""
    if isinstance(rows, dict):
        sets = {name: items_of(config, encoder, part, may_pack=False) for name, part in rows.items()}
        return sets, sum(map(len, rows.values()))
    return (None, 0) if rows is None else (items_of(config, encoder, rows, may_pack=False), len(rows))


def supervision_report(reports: list[DatasetReport], train: TrainRows | None, eval_rows: int) -> SupervisionReport:
    """The report on what is about to be trained on."""
    report = SupervisionReport(reports, eval_rows=eval_rows)
    if train is None or not len(train.rows):
        return report
    rows = train.rows
    longest = int(np.argmax(rows.lengths))
    report.train_rows, report.train_items = len(rows), len(train)
    report.tokens, report.trained_tokens = rows.n_tokens, train.trained_tokens
    report.longest = (int(rows.lengths[longest]), rows.source(longest))
    report.example = train.example
    return report
