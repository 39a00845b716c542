"""Reads every row that a configuration names and collects what the checks need; the order of things is here."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import TYPE_CHECKING

import numpy as np

from tunesmith.core.errors import DataError, Problem
from tunesmith.core.types import Example, Feedback, Preference
from tunesmith.data.catalog import DatasetSpec
from tunesmith.data.checks.alike import Texts, find_leaks, find_repeats
from tunesmith.data.checks.judged import LabelHealth, PairHealth
from tunesmith.data.checks.measure import Measured, measure
from tunesmith.data.checks.result import CheckResult, DatasetCheck, Role
from tunesmith.data.dataset import Dataset, jobs_of, run_jobs
from tunesmith.data.examples import read_examples, select_rows
from tunesmith.data.formats import RowError, convert
from tunesmith.data.mix import split_validation
from tunesmith.data.pipeline import find_specs
from tunesmith.data.progress import progress
from tunesmith.data.report import DatasetReport, raise_rejects
from tunesmith.data.tokenize import Encoder

if TYPE_CHECKING:
    from tunesmith.config.schema import RunConfig


def check_data(config: RunConfig, encoder: Encoder) -> CheckResult:
    """Reads, counts and compares every row of `dataset` and `eval_dataset`.

    Raises:
        DataError: a data set does not exist, cannot be read, or lacks what the stage needs. Bad rows are no error here:
            they are in the result's `problems`.
    """
    from tunesmith.config.schema import KEYS

    named: list[tuple[Role, DatasetSpec]] = [("train", spec) for spec in find_specs(config, config.dataset)]
    named += [("eval", spec) for spec in find_specs(config, config.eval_dataset)]
    is_tokenized = config.stage == "sft"
    made = run_jobs(jobs_of([spec for _, spec in named], encoder, config)) if is_tokenized else []
    datasets = []
    for index, (role, spec) in enumerate(named):
        found = _tokenized(spec, role, config, made[index]) if made else _measured(spec, role, encoder, config)
        found.exact, found.near = find_repeats(found.texts)
        datasets.append(found)
    result = CheckResult(
        stage=config.stage,
        not_built=KEYS["stage"].not_yet_values.get(config.stage, ""),
        template=encoder.template.name,
        cutoff_len=encoder.cutoff_len,
        datasets=datasets,
        problems=_problems([dataset.report for dataset in datasets], config),
    )
    _hold_against(result, config)
    return result


def _tokenized(spec: DatasetSpec, role: Role, config: RunConfig, made: Dataset) -> DatasetCheck:
    """Rows of stage sft, tokenized as training does it (and kept for it)."""
    rows, report = made
    found = DatasetCheck(role, spec.formatting, report, lengths=rows.lengths)
    if len(rows):
        found.longest = rows.source(int(np.argmax(rows.lengths)))
    places = zip(rows.table["file"].tolist(), rows.table["number"].tolist(), strict=True)
    kept = {(rows.files[file], number) for file, number in places}
    with progress(f"reading {spec.name}") as advance:
        for example in _converted(spec, config):
            if example.source and (example.source.file, example.source.row) in kept:
                found.texts.add(example)
            advance(1)
    return found


def _converted(spec: DatasetSpec, config: RunConfig) -> Iterator[Example]:
    """The rows once more; the bad ones are booked already."""
    for row in select_rows(spec, config.max_samples, config.seed, DatasetReport(spec.name)):
        if row.value is not None:
            try:
                yield convert(row.value, spec, config.stage, row.source)
            except RowError:
                continue


def _measured(spec: DatasetSpec, role: Role, encoder: Encoder, config: RunConfig) -> DatasetCheck:
    """Rows of another stage: lengths of prompts and answers, and the health of what was judged."""
    found = DatasetCheck(role, spec.formatting, DatasetReport(spec.name, path=str(spec.path)))
    examples = read_examples(spec, config.stage, config.max_samples, config.seed, found.report)
    lengths: list[int] = []
    with progress(f"reading {spec.name}") as advance:
        while batch := list(islice(examples, config.preprocessing_batch_size)):
            for row in measure(batch, encoder, found.report):
                lengths.append(row.tokens)
                found.texts.add(row.example)
                _judge(row, found)
            advance(len(batch))
    found.lengths = np.array(lengths, dtype=np.int64)
    if lengths:
        found.longest = found.texts.sources[int(np.argmax(found.lengths))]
    return found


def _judge(row: Measured, found: DatasetCheck) -> None:
    if isinstance(row.example, Preference):
        found.pairs = found.pairs or PairHealth()
        found.pairs.add(row.example, *row.answers)
    elif isinstance(row.example, Feedback):
        found.labels = found.labels or LabelHealth()
        found.labels.add(row.example)


def _problems(reports: list[DatasetReport], config: RunConfig) -> list[Problem]:
    """What would stop training on this data."""
    problems = [
        Problem("no row of it can be used", f"dataset {report.name}", "mend the rows")
        for report in reports
        if not report.kept
    ]
    if config.skip_bad_rows:
        return problems
    try:
        raise_rejects(reports, config.allow_untrained_rows)
    except DataError as error:
        return error.problems
    return problems


def _hold_against(result: CheckResult, config: RunConfig) -> None:
    """Leaks between training rows and evaluation rows, be these a data set of their own or held out by `val_size`."""
    training, evaluation = Texts(), Texts()
    for dataset in result.datasets:
        (training if dataset.role == "train" else evaluation).extend(dataset.texts)
    if config.val_size and len(training):
        kept, held_out = split_validation(training.sources, config.val_size, config.seed)
        result.held_out = len(held_out)
        evaluation.extend(training.take(held_out))
        training = training.take(kept)
    if len(training) and len(evaluation):
        result.leaks = find_leaks(evaluation, training)
