"""The order of things: names -> files -> rows -> examples -> tokens -> split -> packs. Only this file knows it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tunesmith.core.errors import DataError, Problem, TemplateError
from tunesmith.core.log import get_logger
from tunesmith.core.types import Conversation, Segment, Source, TokenizedRow
from tunesmith.data import cache
from tunesmith.data.catalog import DatasetSpec, is_file_name, resolve
from tunesmith.data.examples import read_conversations, settle, without_trailing
from tunesmith.data.formats import stage_problems
from tunesmith.data.mix import split_validation
from tunesmith.data.pack import best_fit
from tunesmith.data.progress import progress
from tunesmith.data.prompts import PromptRow, encode_prompts
from tunesmith.data.report import (
    UNTRAINED,
    DatasetReport,
    Reject,
    SupervisionReport,
    log_report,
    raise_rejects,
    unwritable,
)
from tunesmith.data.rows import RowsBuilder, TokenizedRows, TrainRows, concat_rows
from tunesmith.data.settings import RenderSettings
from tunesmith.data.sources import list_files
from tunesmith.data.stop import end_tokens
from tunesmith.data.tokenize import Encoder, is_trained, n_lost_headers, tokenize

if TYPE_CHECKING:
    from tunesmith.config.schema import RunConfig

logger = get_logger(__name__)

Dataset = tuple[TokenizedRows, DatasetReport]
"""One data set's rows and their accounting."""


@dataclass(frozen=True, slots=True)
class PreparedData:
    """What a training run draws from.

    Attributes:
        train: items to train on; None where nothing is trained.
        eval: rows to evaluate on, by data set name with `eval_on_each_dataset`; None where there are none.
        report: what became of the rows.
    """

    train: TrainRows | None
    eval: TrainRows | dict[str, TrainRows] | None
    report: SupervisionReport


def prepare(config: RunConfig, tokenizer: Any, template: Any) -> PreparedData:
    """Everything from data set names to items for the trainer; prints the accounting and the supervision report.

    Raises:
        DataError: data sets that do not exist or do not fit the stage, rejected rows (unless `skip_bad_rows`), rows
            without a trained token (unless `allow_untrained_rows`), or nothing left.
    """
    encoder = make_encoder(config, tokenizer, template)
    wants_train = config.do_train or config.val_size
    train_sets = load_datasets(config, encoder, config.dataset if wants_train else ())
    eval_sets = load_datasets(config, encoder, config.eval_dataset)
    reports = [report for _, report in (*train_sets, *eval_sets)]
    stop_on_rejects(reports, config)
    rows = concat_rows([part for part, _ in train_sets])
    if train_sets and not len(rows):
        raise DataError([Problem("no row is left to train on", "dataset", "every row was rejected: mend them")])
    train_rows, held_out = _split(rows, config)
    train = TrainRows(train_rows, _packs(config, train_rows)) if config.do_train else None
    evaluation = _evaluation(config, eval_sets, held_out)
    report = supervision_report(reports, train, len(held_out or ()) + sum(len(part) for part, _ in eval_sets))
    log_report(report, tokenizer.decode, logger)
    return PreparedData(train, evaluation, report)


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
        found = [without_trailing(row) for row in read_conversations(spec, config.max_samples, config.seed, report)]
        rows += encode_prompts(encoder, found, end_ids(encoder), report)
    stop_on_rejects(reports, config)
    if config.val_size and not config.eval_dataset:
        _, held_out = split_validation([row.source or Source("", 0) for row in rows], config.val_size, config.seed)
        rows = [rows[index] for index in held_out]
    for report in reports:
        logger.info(report.accounting())
    if cut := [row for row in rows if row.lost_tokens]:
        logger.warning(
            "%d prompts were cut to cutoff_len %d, the first: %s", len(cut), config.cutoff_len, cut[0].source
        )
    return rows


def make_encoder(config: RunConfig, tokenizer: Any, template: Any) -> Encoder:
    """Tokenizer, template and the keys that shape a rendering."""
    settings = RenderSettings(
        enable_thinking=config.enable_thinking,
        preserve_thinking=config.preserve_thinking,
        mask_history=config.mask_history,
        train_on_prompt=config.train_on_prompt,
        default_system=config.default_system,
        tool_format=config.tool_format,
        compat=config.template_compat == "llamafactory",
    )
    return Encoder(tokenizer, template, settings, config.cutoff_len)


def find_specs(config: RunConfig, names: Sequence[str]) -> list[DatasetSpec]:
    """The data sets behind `names`, layouts settled and held against the stage.

    Raises:
        DataError: every data set that cannot be used, at once.
    """
    specs = [settle(spec) for spec in resolve(tuple(names), config.dataset_dir)] if names else []
    problems = [problem for spec in specs for problem in stage_problems(spec, config.stage)]
    if problems:
        raise DataError(problems)
    return specs


def load_datasets(config: RunConfig, encoder: Encoder, names: Sequence[str]) -> list[Dataset]:
    """The data sets behind `names`, tokenized, with their accounting; bad rows are booked, not raised.

    Raises:
        DataError: data sets that do not exist, cannot be read, or do not fit the stage.
    """
    if config.stage != "sft":
        raise DataError([Problem(f"training data of stage {config.stage} is not built yet", "stage", "stage: sft is")])
    specs = find_specs(config, names)
    if not specs:
        return []
    version = encoder_version(encoder)
    return [tokenize_dataset(spec, encoder, config, version) for spec in specs]


def tokenize_dataset(spec: DatasetSpec, encoder: Encoder, config: RunConfig, version: str) -> Dataset:
    """One data set as token ids with its accounting, out of the cache where nothing it depends on has changed."""
    key = cache_key(spec, config, version)
    found = None if config.overwrite_cache else cache.load(key)
    if found is not None:
        logger.info("%s: tokenized rows taken from %s", spec.name, cache.cache_file(key))
    rows, report = found or _tokenize_fresh(spec, encoder, config)
    if found is None:
        cache.save(key, rows, report)
    report.name = spec.name
    return rows, report


def encoder_version(encoder: Encoder) -> str:
    """Hash of what turns a conversation into ids: code, tokenizer, template, settings."""
    return cache.digest(
        cache.code_version(),
        cache.tokenizer_version(encoder.tokenizer),
        cache.template_version(encoder.template),
        asdict(encoder.settings),
        encoder.cutoff_len,
    )


def cache_key(spec: DatasetSpec, config: RunConfig, version: str) -> str:
    """sha256 over everything that the tokenized rows and their accounting depend on; `version` is the encoder's."""
    layout = {name: value for name, value in asdict(spec).items() if name != "name"}
    return cache.digest(
        version,
        [(str(path), cache.hash_file(path)) for path in list_files(spec.path)],
        layout,
        {"stage": config.stage, "max_samples": config.max_samples},
        config.seed if spec.num_samples is not None else None,
    )


def _tokenize_fresh(spec: DatasetSpec, encoder: Encoder, config: RunConfig) -> Dataset:
    report = DatasetReport(spec.name, path=str(spec.path))
    builder = RowsBuilder()
    ends = end_ids(encoder)
    examples = read_conversations(spec, config.max_samples, config.seed, report)
    with progress(f"tokenizing {spec.name}") as advance:
        for batch in _in_batches(examples, config.preprocessing_batch_size):
            conversations, rendered = render_rows(batch, encoder, report)
            rows = tokenize(encoder, conversations, rendered)
            kept = [row for row in rows if is_trained(row) or _book_untrained(row, report)]
            part = builder.add(kept)
            report.keep(part, ends)
            report.lost_headers += n_lost_headers(kept)
            advance(len(batch))
    return builder.build(), report


def _in_batches(examples: Iterator[Any], size: int) -> Iterator[list[Any]]:
    while batch := list(islice(examples, size)):
        yield batch


def render_rows(
    batch: list[Conversation], encoder: Encoder, report: DatasetReport
) -> tuple[list[Conversation], list[list[Segment]]]:
    """The rows that the template can write, and their text; the others are booked as rejected."""
    conversations, rendered = [], []
    for whole in batch:
        conversation = without_trailing(whole)
        report.trailing += conversation is not whole
        try:
            segments = encoder.segments(conversation)
        except TemplateError as error:
            report.reject(unwritable(whole, error))
            continue
        conversations.append(conversation)
        rendered.append(segments)
    return conversations, rendered


def _book_untrained(row: TokenizedRow, report: DatasetReport) -> bool:
    lost = row.lost_trained_tokens
    fix = (
        f"raise cutoff_len: {lost} trained tokens were cut off" if lost else "let an answer carry loss (weight, train)"
    )
    report.reject(Reject(row.source or Source("", 0), "", UNTRAINED, fix))
    return False


def end_ids(encoder: Encoder) -> frozenset[int]:
    """Tokens that end an answer: the template's, and the tokenizer's eos."""
    ids = {int(token) for token in end_tokens(encoder.template, encoder.tokenizer)}
    if encoder.tokenizer.eos_token_id is not None:
        ids.add(int(encoder.tokenizer.eos_token_id))
    return frozenset(ids)


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


def _split(rows: TokenizedRows, config: RunConfig) -> tuple[TokenizedRows, TokenizedRows | None]:
    if not config.val_size:
        return rows, None
    kept, held_out = split_validation([rows.source(index) for index in range(len(rows))], config.val_size, config.seed)
    return rows.take(kept), rows.take(held_out)


def _packs(config: RunConfig, rows: TokenizedRows) -> list[list[int]] | None:
    if not (config.packing or config.neat_packing):
        return None
    return best_fit(rows.lengths.tolist(), config.cutoff_len)


def _evaluation(
    config: RunConfig, sets: list[Dataset], held_out: TokenizedRows | None
) -> TrainRows | dict[str, TrainRows] | None:
    if not sets:
        return None if held_out is None else TrainRows(held_out)
    if not config.eval_on_each_dataset:
        parts = [part for part, _ in sets]
        return TrainRows(concat_rows(parts if held_out is None else [*parts, held_out]))
    grouped: dict[str, list[TokenizedRows]] = {}
    for part, report in sets:
        name = Path(report.name).stem if is_file_name(report.name) else report.name
        grouped.setdefault(name, []).append(part)
    return {name: TrainRows(concat_rows(members)) for name, members in grouped.items()}


def supervision_report(reports: list[DatasetReport], train: TrainRows | None, eval_rows: int) -> SupervisionReport:
    """The report on what is about to be trained on."""
    report = SupervisionReport(reports, eval_rows=eval_rows)
    if train is None or not len(train.rows):
        return report
    rows = train.rows
    longest = int(np.argmax(rows.lengths))
    report.train_rows, report.train_items = len(rows), len(train)
    report.tokens, report.trained_tokens = int(rows.offsets[-1]), int(rows.n_trained.sum())
    report.longest = (int(rows.lengths[longest]), rows.source(longest))
    report.example = rows[0]
    return report
