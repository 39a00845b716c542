"""One data set from examples to token ids: in batches, shard by shard into the cache. Knows of no other set."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from itertools import islice
from typing import TYPE_CHECKING, Any

from tunesmith.core.errors import TemplateError
from tunesmith.core.log import get_logger
from tunesmith.core.types import Conversation, Segment, Source, Text, TokenizedRow
from tunesmith.data import cache
from tunesmith.data.catalog import DatasetSpec
from tunesmith.data.examples import read_examples, without_trailing
from tunesmith.data.formats import KIND_OF_STAGE
from tunesmith.data.judged import tokenize_feedback, tokenize_pairs
from tunesmith.data.progress import progress
from tunesmith.data.report import UNTRAINED, DatasetReport, Reject, unwritable
from tunesmith.data.rows import RowsBuilder, TokenizedRows, pack_arrays
from tunesmith.data.sources import data_files
from tunesmith.data.spans import masked_answers
from tunesmith.data.stop import end_tokens
from tunesmith.data.texts import tokenize_texts
from tunesmith.data.tokenize import LOST_HEADER, LOST_QUESTION, Encoder, is_trained, tokenize

if TYPE_CHECKING:
    from tunesmith.config.schema import RunConfig

logger = get_logger(__name__)

Dataset = tuple[TokenizedRows, DatasetReport]
"""One data set's rows and their accounting."""
SHARD_ROWS = 4096
"""Rows that are read before what was made of them is made to last."""


def tokenize_dataset(spec: DatasetSpec, encoder: Encoder, config: RunConfig, version: str) -> Dataset:
    """One data set as token ids with its accounting, out of the cache where nothing it depends on has changed."""
    key = cache_key(spec, config, version)
    found = None if config.overwrite_cache else cache.load(key)
    if found is None:
        try:
            with cache.locked(key):
                found = None if config.overwrite_cache else cache.load(key)
                found = found or _tokenize_to_disk(key, spec, encoder, config)
        except OSError as error:
            cache.discard(key)
            logger.warning("tokenized rows are not kept for the next run: %s", error)
            found = _tokenize_in_memory(spec, encoder, config)
    else:
        logger.info("%s: tokenized rows taken from %s", spec.name, cache.cache_folder(key))
    rows, report = found
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
    layout = {name: value for name, value in asdict(replace(spec, name="")).items() if name != "files"}
    return cache.digest(
        version,
        [(name, cache.hash_file(path)) for path, name in data_files(spec)],
        layout,
        {"stage": config.stage, "max_samples": config.max_samples},
        config.seed if spec.num_samples is not None else None,
    )


def _tokenize_to_disk(key: str, spec: DatasetSpec, encoder: Encoder, config: RunConfig) -> Dataset:
    """Tokenizes into the cache, behind the shards that a process which was stopped left there.

    Raises:
        OSError: the cache cannot be written.
    """
    writer, known = cache.begin(key, afresh=config.overwrite_cache)
    report = known or DatasetReport(spec.name, path=str(spec.path))
    if known is not None:
        logger.info("%s: %d rows were read before a stop; going on behind them", spec.name, known.read)
    saved = report.read

    def keep(part: TokenizedRows) -> None:
        nonlocal saved
        writer.add(part)
        if report.read - saved >= SHARD_ROWS:
            cache.keep_shard(writer, report)
            saved = report.read

    try:
        tokenize_rows(spec, encoder, config, report, keep)
        cache.keep_shard(writer, report)
    finally:
        writer.close()
    cache.publish(key, writer)
    found = cache.load(key)
    if found is None:
        raise OSError("what was written cannot be read again")
    return found


def _tokenize_in_memory(spec: DatasetSpec, encoder: Encoder, config: RunConfig) -> Dataset:
    report, builder = DatasetReport(spec.name, path=str(spec.path)), RowsBuilder()
    tokenize_rows(spec, encoder, config, report, builder.add)
    return builder.build(), report


def tokenize_rows(
    spec: DatasetSpec,
    encoder: Encoder,
    config: RunConfig,
    report: DatasetReport,
    keep: Callable[[TokenizedRows], None],
) -> None:
    """Reads, renders and tokenizes a data set in batches.

    Args:
        spec: what is read.
        encoder: tokenizer, template, settings.
        config: `stage`, `max_samples`, `seed`, `preprocessing_batch_size`.
        report: the accounting; what it has read already is passed over.
        keep: takes the usable rows of a batch.
    """
    ends = end_ids(encoder)
    examples = read_examples(spec, config.stage, config.max_samples, config.seed, report)
    with progress(f"tokenizing {spec.name}") as advance, settled_memory():
        for batch in _in_batches(examples, min(config.preprocessing_batch_size, SHARD_ROWS)):
            rows = book_rows(batch, encoder, config.stage, report)
            part = pack_arrays(rows)
            report.keep(part, ends)
            keep(part)
            advance(len(batch))


@contextmanager
def settled_memory() -> Iterator[None]:
    """Spares the garbage collector what was there before: a row makes thousands of objects and no cycle."""
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


def book_rows(batch: list[Any], encoder: Encoder, stage: str, report: DatasetReport) -> list[TokenizedRow]:
    """The usable rows of a batch, tokenized as the stage reads them; the others are booked as rejected."""
    rows = _TOKENIZERS[KIND_OF_STAGE[stage]](batch, encoder, report)
    kept = [row for row in rows if is_trained(row) or _book_untrained(row, report)]
    for row in kept:
        if row.extra:
            report.note_cut(row.source or Source("", 0), LOST_HEADER in row.extra, LOST_QUESTION in row.extra)
    return kept


def _tokenize_conversations(batch: list[Conversation], encoder: Encoder, report: DatasetReport) -> list[TokenizedRow]:
    return tokenize(encoder, *render_rows(batch, encoder, report))


def _tokenize_texts(batch: list[Text], encoder: Encoder, report: DatasetReport) -> list[TokenizedRow]:
    return tokenize_texts(encoder, batch)


_TOKENIZERS: dict[str, Callable[[list[Any], Encoder, DatasetReport], list[TokenizedRow]]] = {
    "conversation": _tokenize_conversations,
    "preference": tokenize_pairs,
    "feedback": tokenize_feedback,
    "text": _tokenize_texts,
}
"""Kind of example -> how a batch of them becomes rows."""


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
        report.masked_answers += masked_answers(conversation, segments, encoder.settings)
        conversations.append(conversation)
        rendered.append(segments)
    return conversations, rendered


def _book_untrained(row: TokenizedRow, report: DatasetReport) -> bool:
    lost = row.lost_trained_tokens
    fix = "let an answer carry loss (weight, train)"
    if lost:
        fix = f"raise cutoff_len: {lost} trained tokens were cut off"
    elif len(row.input_ids) < 2:
        fix = "it is empty: take it out"
    report.reject(Reject(row.source or Source("", 0), "", UNTRAINED, fix))
    return False


def end_ids(encoder: Encoder) -> frozenset[int]:
    """Tokens that end an answer: the template's, and the tokenizer's eos."""
    ids = {int(token) for token in end_tokens(encoder.template, encoder.tokenizer)}
    if encoder.tokenizer.eos_token_id is not None:
        ids.add(int(encoder.tokenizer.eos_token_id))
    return frozenset(ids)
