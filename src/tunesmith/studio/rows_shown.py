"""Rows of a data set as the Data tab shows them: token by token, trained ones coloured. No Gradio here."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from tunesmith.core.types import IGNORE_INDEX, TokenizedRow
from tunesmith.recipes.paint import token_texts
from tunesmith.recipes.preview import SeenRow
from tunesmith.studio.markup import Html, joined, note, page_part, tag
from tunesmith.studio.words import say

MOST_TOKENS = 4000
"""Of a sequence; a browser gets slow with more."""


def rows_page(rows: Iterable[SeenRow], tokenizer: Any, language: str = "en") -> str:
    """All rows, with what the colours mean.

    Args:
        rows: as the model sees them.
        tokenizer: ids to text.
        language: of what is said around them.
    """
    legend = tag(
        "div",
        tag("i", say("data.trained", language), kind="on"),
        tag("i", say("data.read", language), kind="off"),
        kind="ts-legend",
    )
    shown = [_row(row, tokenizer, language) for row in rows]
    return page_part(legend, *shown) if shown else page_part(note(say("data.no_rows", language), "quiet"))


def _row(row: SeenRow, tokenizer: Any, language: str) -> Html:
    where = tag("b", row.source)
    if row.problem:
        return tag("section", tag("header", where), note(row.problem, "bad"), kind="ts-row")
    return joined(
        tag(
            "section",
            tag("header", where, *_facts(part.title, row.label, part.tokens, language)),
            _tokens(part.tokens, tokenizer, language),
            kind="ts-row",
        )
        for part in row.parts
    )


def _facts(title: str, label: str, row: TokenizedRow, language: str) -> Iterable[Html]:
    total = len(row.input_ids)
    share = f"{100 * row.n_trained / total:.0f} %" if total else "-"
    for word in (title, label):
        if word:
            yield tag("span", say(f"data.{word.replace(' ', '_')}", language))
    yield tag("span", say("data.tokens", language, total=total, trained=row.n_trained, share=share))
    if row.lost_tokens:
        yield tag("span", say("data.lost", language, lost=row.lost_tokens))


def _tokens(row: TokenizedRow, tokenizer: Any, language: str) -> Html:
    """Every token in an element of its own; those within one character stand in that of its last."""
    ids, labels = row.input_ids[:MOST_TOKENS], row.labels[:MOST_TOKENS]
    pieces: list[Html] = []
    pending: list[int] = []
    for token, label, text in zip(ids, labels, token_texts(ids, tokenizer), strict=True):
        pending.append(token)
        if not text:
            continue
        kind = "" if label == IGNORE_INDEX else "on"
        pieces.append(tag("i", _visible(text), kind=kind, title=", ".join(map(str, pending))))
        pending = []
    more = len(row.input_ids) - len(ids)
    rest = note(say("data.more_tokens", language, count=more), "quiet") if more else ""
    return tag("div", *pieces, rest, kind="ts-tokens")


def _visible(text: str) -> str:
    """Ends of lines are seen and still end the line."""
    return text.replace("\n", "⏎\n")
