"""The order of things: names -> files -> rows -> examples -> tokens -> split -> packs. Only this file knows it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tunesmith.core import env
from tunesmith.core.errors import DataError, Problem
from tunesmith.core.log import get_logger
from tunesmith.core.types import Conversation, Source
from tunesmith.data import tokenized
from tunesmith.data.booking import end_ids
from tunesmith.data.catalog import DatasetSpec, resolve
from tunesmith.data.dataset import Dataset, Job, jobs_of, run_jobs
from tunesmith.data.early import is_worth_growing, prepare_growing
from tunesmith.data.examples import read_examples, settle, without_trailing
from tunesmith.data.formats import stage_problems
from tunesmith.data.growing import GrowingRows
from tunesmith.data.hubs import fetch
from tunesmith.data.items import eval_rows_of, evaluation_of, items_of, stop_on_rejects, supervision_report
from tunesmith.data.mix import split_and_mix, split_validation
from tunesmith.data.prompts import PromptRow, PromptRows, encode_prompts
from tunesmith.data.report import DatasetReport, SupervisionReport, cut_warnings, log_report
from tunesmith.data.rows import TokenizedRows, TrainRows, concat_rows
from tunesmith.data.settings import settings_of
from tunesmith.data.stream import StreamRows
from tunesmith.data.tokenize import Encoder

if TYPE_CHECKING:
    from tunesmith.config.schema import RunConfig

logger = get_logger(__name__)

PROMPT_STAGES = ("ppo", "grpo")
"""Stages whose rows are prompts that the model answers while it trains."""


@dataclass(frozen=True, slots=True)
class PreparedData:
    """What a training run draws from.

    Attributes:
        train: items to train on; None where nothing is trained.
        eval: rows to evaluate on, by data set name with `eval_on_each_dataset`; None where there are none.
        report: what became of the rows.
    """

    train: TrainRows | GrowingRows | StreamRows | PromptRows | None
    eval: TrainRows | dict[str, TrainRows] | None
    report: SupervisionReport


def prepare(config: RunConfig, tokenizer: Any, template: Any) -> PreparedData:
    """Everything from data set names to items for the trainer; prints the accounting and the supervision report.

    Raises:
        DataError: data sets that do not exist or do not fit the stage, rejected rows (unless `skip_bad_rows`), rows
            without a trained token (unless `allow_untrained_rows`), or nothing left.
    """
    if config.stage in PROMPT_STAGES:
        return _prepare_reinforcement(config, tokenizer, template)
    encoder = make_encoder(config, tokenizer, template)
    if config.streaming and config.do_train:
        return _prepare_stream(config, encoder)
    if tokenized.holds_something(config.tokenized_path):
        found = tokenized.load(config, encoder, _specs_to_compare(config))
        stop_on_rejects(found.reports, config)
    else:
        train_jobs, eval_jobs = _find_jobs(config, encoder)
        if config.do_train and is_worth_growing(config, train_jobs):
            return PreparedData(*prepare_growing(config, encoder, train_jobs, eval_jobs))
        found = _make_rows(config, encoder, train_jobs, eval_jobs)
    train = items_of(config, encoder, found.train) if config.do_train and found.train else None
    if config.do_train and train is None:
        raise DataError([Problem("no row is left to train on", "dataset", "every row was rejected: mend them")])
    evaluation, eval_rows = evaluation_of(config, encoder, found.eval)
    report = supervision_report(found.reports, train, eval_rows)
    log_report(report, tokenizer.decode, logger)
    return PreparedData(train, evaluation, report)


def _prepare_reinforcement(config: RunConfig, tokenizer: Any, template: Any) -> PreparedData:
    """Prompts to answer in training; what the rows hold as answers is for rewards to compare with."""
    rows = prepare_prompts(config, tokenizer, template)
    if not rows:
        raise DataError([Problem("no prompt is left to train on", "dataset", "every row was rejected: mend them")])
    logger.info("%d prompts to answer; the first: %r", len(rows), rows[0].prompt_text)
    return PreparedData(PromptRows(rows, config.max_new_tokens), None, SupervisionReport([], train_rows=len(rows)))


def _prepare_stream(config: RunConfig, encoder: Encoder) -> PreparedData:
    """Counts the training rows; rows to evaluate on are tokenized now."""
    train = StreamRows(config, encoder, find_specs(config, config.dataset))
    held_out = train.hold_out()
    train.preflight()
    eval_sets = run_jobs(jobs_of(find_specs(config, config.eval_dataset), encoder, config))
    reports = [report for _, report in eval_sets]
    stop_on_rejects(reports, config)
    evaluation, eval_rows = evaluation_of(config, encoder, eval_rows_of(config, eval_sets, held_out))
    return PreparedData(train, evaluation, SupervisionReport(reports, train_rows=len(train), eval_rows=eval_rows))


def _find_jobs(config: RunConfig, encoder: Encoder) -> tuple[list[Job], list[Job]]:
    """The data sets to train on, and those to evaluate on."""
    names = config.dataset if config.do_train or config.val_size else ()
    train, evaluation = find_specs(config, names), find_specs(config, config.eval_dataset)
    jobs = jobs_of([*train, *evaluation], encoder, config)
    return jobs[: len(train)], jobs[len(train) :]


def _make_rows(config: RunConfig, encoder: Encoder, train_jobs: list[Job], eval_jobs: list[Job]) -> tokenized.Tokenized:
    """Reads, tokenizes, splits and mixes what the configuration names; keeps it where `tokenized_path` says."""
    train_sets, eval_sets = run_jobs(train_jobs), run_jobs(eval_jobs)
    reports = [report for _, report in (*train_sets, *eval_sets)]
    stop_on_rejects(reports, config)
    rows = concat_rows([part for part, _ in train_sets])
    if train_sets and not len(rows):
        raise DataError([Problem("no row is left to train on", "dataset", "every row was rejected: mend them")])
    train_rows, held_out = _split_and_mix(rows, train_sets, config)
    found = tokenized.Tokenized(train_rows if train_sets else None, eval_rows_of(config, eval_sets, held_out), reports)
    if config.tokenized_path and env.rank() == 0:
        tokenized.save(config.tokenized_path, found, config, encoder, _specs_to_compare(config))
    return found


def _specs_to_compare(config: RunConfig) -> list[DatasetSpec]:
    """The data sets that the configuration names; where they are gone, only their names can be compared."""
    try:
        return find_specs(config, (*config.dataset, *config.eval_dataset))
    except DataError as error:
        logger.warning("tokenized_path: the data sets cannot be compared with it: %s", error.problems[0])
        return []


def prepare_prompts(config: RunConfig, tokenizer: Any, template: Any) -> list[PromptRow]:
    """The rows to predict: `eval_dataset`; without it what `val_size` holds out of `dataset`, or all of `dataset`.

    Raises:
        DataError: data sets that do not exist or do not fit, or rejected rows (unless `skip_bad_rows`).
    """
    encoder = make_encoder(config, tokenizer, template)
    specs = find_specs(config, config.eval_dataset or config.dataset)
    reports = [DatasetReport(spec.name, path=str(spec.path)) for spec in specs]
    rows: list[PromptRow] = []
    for spec, report in zip(specs, reports, strict=True):
        stage = config.stage if config.stage in PROMPT_STAGES else "sft"
        examples = read_examples(spec, stage, config.max_samples, config.seed, report)
        found = [_asked(row) for row in examples if isinstance(row, Conversation)]
        rows += encode_prompts(encoder, found, end_ids(encoder), report)
    stop_on_rejects(reports, config)
    if config.val_size and not config.eval_dataset:
        _, held_out = split_validation([row.source or Source("", 0) for row in rows], config.val_size, config.seed)
        rows = [rows[index] for index in held_out]
    for report in reports:
        logger.info(report.accounting())
        for line in cut_warnings(report):
            logger.warning(line)
    if cut := [row for row in rows if row.lost_tokens]:
        logger.warning(
            "%d prompts were cut to cutoff_len %d, the first: %s", len(cut), config.cutoff_len, cut[0].source
        )
    return rows


def _asked(row: Conversation) -> Conversation:
    """A row without what follows its last answer; one that holds no answer is asked as it is."""
    return without_trailing(row) if any(message.role == "assistant" for message in row.messages) else row


def make_encoder(config: RunConfig, tokenizer: Any, template: Any) -> Encoder:
    """Tokenizer, template and the keys that shape a rendering."""
    return Encoder(tokenizer, template, settings_of(config), config.cutoff_len)


def find_specs(config: RunConfig, names: Sequence[str]) -> list[DatasetSpec]:
    """The data sets behind `names`, layouts settled and held against the stage.

    Raises:
        DataError: every data set that cannot be used, at once.
    """
    tokens = {"hf": config.hf_hub_token, "ms": config.ms_hub_token, "om": config.om_hub_token}
    found = resolve(tuple(names), config.dataset_dir, config.hf_hub_token) if names else []
    specs = [settle(fetch(spec, tokens, config.cache_dir)) for spec in found]
    problems = [problem for spec in specs for problem in stage_problems(spec, config.stage)]
    if problems:
        raise DataError(problems)
    return specs


def _split_and_mix(
    rows: TokenizedRows, sets: list[Dataset], config: RunConfig
) -> tuple[TokenizedRows, TokenizedRows | None]:
    """The rows to train on, and those that `val_size` holds out."""
    sizes, names = [len(part) for part, _ in sets], [report.name for _, report in sets]
    kept, held = split_and_mix(rows.sources, sizes, names, config)
    is_whole = len(kept) == len(rows) and config.mix_strategy == "concat"
    return rows if is_whole else rows.take(kept), rows.take(held) if config.val_size else None
