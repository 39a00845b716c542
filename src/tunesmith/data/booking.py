"""Examples -> token rows, every one of them booked as kept or rejected. What stage reads what is in one table."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from tunesmith.core.errors import TemplateError
from tunesmith.core.types import Conversation, Segment, Source, Text, TokenizedRow
from tunesmith.data.examples import without_trailing
from tunesmith.data.formats import KIND_OF_STAGE
from tunesmith.data.judged import tokenize_feedback, tokenize_pairs
from tunesmith.data.report import UNTRAINED, DatasetReport, Reject, unwritable
from tunesmith.data.spans import masked_answers
from tunesmith.data.stop import end_tokens
from tunesmith.data.texts import tokenize_texts
from tunesmith.data.tokenize import LOST_HEADER, LOST_QUESTION, Encoder, is_trained, tokenize


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
