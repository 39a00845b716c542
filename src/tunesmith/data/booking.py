"""Examples -> token rows, every one of them booked as kept or rejected. What stage reads what is in one table."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from tunesmith.core.errors import TemplateError
from tunesmith.core.types import Conversation, Feedback, Preference, Segment, Source, Text, TokenizedRow
from tunesmith.data.examples import without_trailing
from tunesmith.data.flat import pack_arrays
from tunesmith.data.formats import KIND_OF_STAGE
from tunesmith.data.frames import Filled
from tunesmith.data.judged import tokenize_feedback, tokenize_pairs
from tunesmith.data.report import UNTRAINED, DatasetReport, Reject, unwritable
from tunesmith.data.rows import TokenizedRows
from tunesmith.data.spans import masked_answers
from tunesmith.data.stop import end_tokens
from tunesmith.data.texts import tokenize_texts
from tunesmith.data.tokenize import LOST_HEADER, LOST_QUESTION, Encoder, tokenize_block


@contextmanager
def settled_memory() -> Iterator[None]:
    """Spares the garbage collector what was there before, and most of its work: rows make many objects and no cycle."""
    before = gc.get_threshold()
    gc.freeze()
    gc.set_threshold(100_000, *before[1:])
    try:
        yield
    finally:
        gc.set_threshold(*before)
        gc.unfreeze()


def book_rows(batch: list[Any], encoder: Encoder, stage: str, report: DatasetReport) -> TokenizedRows:
    """The usable rows of a batch, tokenized as the stage reads them; the others are booked as rejected."""
    rows, extras = _TOKENIZERS[KIND_OF_STAGE[stage]](batch, encoder, report)
    is_trained = rows.n_trained > 0
    for index in np.flatnonzero(~is_trained).tolist():
        _book_untrained(rows[index], report)
        extras.pop(index, None)
    for index, extra in extras.items():
        report.note_cut(rows.source(index), LOST_HEADER in extra, LOST_QUESTION in extra)
    return rows if is_trained.all() else rows.take(np.flatnonzero(is_trained)).compact()


Made = tuple[TokenizedRows, dict[int, dict[str, Any]]]
"""Rows of a batch, and `TokenizedRow.extra` by number where there is any."""


def _tokenize_conversations(batch: list[Conversation], encoder: Encoder, report: DatasetReport) -> Made:
    return tokenize_block(encoder, *render_rows(batch, encoder, report))


def _tokenize_texts(batch: list[Text], encoder: Encoder, report: DatasetReport) -> Made:
    return pack_arrays(tokenize_texts(encoder, batch)), {}


def _tokenize_pairs(batch: list[Preference], encoder: Encoder, report: DatasetReport) -> Made:
    return _packed(tokenize_pairs(batch, encoder, report))


def _tokenize_feedback(batch: list[Feedback], encoder: Encoder, report: DatasetReport) -> Made:
    return _packed(tokenize_feedback(batch, encoder, report))


def _packed(rows: list[TokenizedRow]) -> Made:
    return pack_arrays(rows), {index: row.extra for index, row in enumerate(rows) if row.extra}


_TOKENIZERS: dict[str, Callable[[list[Any], Encoder, DatasetReport], Made]] = {
    "conversation": _tokenize_conversations,
    "preference": _tokenize_pairs,
    "feedback": _tokenize_feedback,
    "text": _tokenize_texts,
}
"""Kind of example -> how a batch of them becomes rows."""


def render_rows(
    batch: list[Conversation], encoder: Encoder, report: DatasetReport
) -> tuple[list[Conversation], list[list[Segment] | Filled]]:
    """The rows that the template can write, and their text; the others are booked as rejected."""
    conversations: list[Conversation] = []
    rendered: list[list[Segment] | Filled] = []
    for whole in batch:
        conversation = without_trailing(whole)
        report.trailing += conversation is not whole
        filled = encoder.frames.fill(conversation) if encoder.frames else None
        if filled is not None:
            report.masked_answers += filled.frame.n_masked
            conversations.append(conversation)
            rendered.append(filled)
            continue
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
