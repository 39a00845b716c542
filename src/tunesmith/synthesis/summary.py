"""The summary page: numbers, reasons, samples with their place in the source. One HTML file that loads nothing."""

from __future__ import annotations

import html
import random
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunesmith.synthesis.rows import Account, Pair, Row

if TYPE_CHECKING:
    from tunesmith.config.schema import RunConfig

_STYLE = Path(__file__).with_suffix(".css")
_SAMPLES = 12
_PAIRS = 4
_FAILURES = 12
_AROUND = 90
"""Characters of the source shown before and behind a quote."""
_LONGEST = 600
_BARS = 12


@dataclass(frozen=True, slots=True)
class Summary:
    """What the page shows.

    Attributes:
        name: of the data set.
        config: of the command.
        account: what became of all rows.
        held: ids of rows for evaluation.
        pairs: what became of all pairs; None where none were asked for.
        facts: the numbers of making_results.json.
    """

    name: str
    config: RunConfig
    account: Account[Row]
    held: set[str]
    pairs: Account[Pair] | None
    facts: dict[str, Any]


def page(summary: Summary) -> str:
    """The page as HTML."""
    parts = [
        f"<h1>{_safe(summary.name)}</h1>",
        f"<p class=sub>{_safe(_subtitle(summary))}</p>",
        _tiles(summary),
        *_charts(summary),
        *_samples(summary),
        *_pair_samples(summary),
        *_failures(summary),
    ]
    return _PAGE.format(title=_safe(summary.name), style=_STYLE.read_text(encoding="utf-8"), body="\n".join(parts))


def _safe(text: object) -> str:
    return html.escape(str(text))


def _short(text: str, most: int = _LONGEST) -> str:
    return _safe(text if len(text) <= most else f"{text[:most]}…")


def _subtitle(summary: Summary) -> str:
    config = summary.config
    texts = ", ".join(config.input_file_path) or f"chunks of {config.chunks}"
    if config.command == "data dialogue":
        return f"words of {', '.join(config.roles)} in {texts}"
    return f"from {texts}, written by {config.generator_model or config.model_name_or_path}"


def _tiles(summary: Summary) -> str:
    facts = summary.facts
    tiles = [
        ("requested", f"{facts['requested']:,}"),
        ("kept", f"{facts['kept']:,}"),
        ("failed", f"{facts['failed']:,}"),
        ("to train on", f"{facts['train_rows']:,}"),
        ("to evaluate on", f"{facts['eval_rows']:,}"),
    ]
    if facts["calls"]["answered"]:
        tokens = facts["tokens"]
        tiles += [("calls", f"{facts['calls']['answered']:,}"), ("tokens", f"{sum(tokens.values()):,}")]
    if facts["cost"]:
        tiles.append(("cost", f"{facts['cost']:.4f}"))
    cells = "".join(f"<div class=tile><b>{_safe(value)}</b><span>{name}</span></div>" for name, value in tiles)
    return f"<div class=tiles>{cells}</div>"


def _charts(summary: Summary) -> Iterator[str]:
    account = summary.account
    yield "<div class=charts>"
    yield _bars("Why entries failed", account.reasons, "bad")
    kinds = Counter(row.kind for row in account.rows).most_common()
    yield _bars("Who was answered" if summary.config.command == "data dialogue" else "How rows ask", kinds)
    yield _bars("Length of answers, in characters", _lengths([len(row.output) for row in account.rows]))
    texts = Counter(row.source.name for row in account.rows).most_common()
    if len(texts) > 1:
        yield _bars("Rows by text", texts)
    yield "</div>"


def _bars(title: str, counts: Sequence[tuple[str, int]], kind: str = "") -> str:
    if not counts:
        return ""
    most = max(count for _, count in counts)
    rows = "".join(
        f"<tr><td class=label title='{_safe(name)}'>{_short(name, 48)}</td>"
        f"<td class=track><i class='{kind}' style='width:{100 * count / most:.1f}%'></i></td>"
        f"<td class=n>{count:,}</td></tr>"
        for name, count in counts[:_BARS]
    )
    more = f"<p class=more>and {len(counts) - _BARS} more</p>" if len(counts) > _BARS else ""
    return f"<section class=chart><h2>{_safe(title)}</h2><table>{rows}</table>{more}</section>"


def _lengths(values: Sequence[int]) -> list[tuple[str, int]]:
    """Counts by length, in steps that double."""
    counts: Counter[int] = Counter(max(4, value.bit_length()) for value in values)
    if not counts:
        return []
    steps = range(min(counts), max(counts) + 1)
    return [(f"{0 if step == 4 else 2 ** (step - 1)} – {2**step - 1}", counts[step]) for step in steps]


def _samples(summary: Summary) -> Iterator[str]:
    rows = _drawn(summary.account.rows, _SAMPLES)
    if not rows:
        return
    yield f"<h2>Samples ({len(rows)} of {len(summary.account.rows):,})</h2>"
    for row in rows:
        side = "evaluation" if row.id in summary.held else "training"
        system = f"<p class=system>{_short(row.system)}</p>" if row.system else ""
        turns = "".join(_turn(question, answer) for question, answer in row.history)
        yield (
            f"<article><header><code>{_safe(row.id)}</code><span class=tag>{_short(row.kind, 40)}</span>"
            f"<span class='tag {side}'>{side}</span></header>"
            f"{system}{turns}{_turn(row.asked, row.output)}{_source(row)}</article>"
        )


def _turn(question: str, answer: str) -> str:
    return f"<p class=q>{_short(question)}</p><p class=a>{_short(answer)}</p>"


def _source(row: Row) -> str:
    """The quote as it stands in the text."""
    text = row.source.text
    before = text[max(0, row.start - _AROUND) : row.start].rpartition("\n\n")[2]
    behind = text[row.end : row.end + _AROUND].partition("\n\n")[0]
    return (
        f"<blockquote>{_safe(before)}<mark>{_short(row.quote)}</mark>{_safe(behind)}"
        f"<cite>{_safe(row.source.name)}, characters {row.start:,} to {row.end:,}; found by {row.found_by}</cite>"
        "</blockquote>"
    )


def _pair_samples(summary: Summary) -> Iterator[str]:
    if summary.pairs is None:
        return
    pairs = summary.pairs
    yield f"<h2>Pairs ({_safe(pairs.line())})</h2>"
    for pair in _drawn(pairs.rows, _PAIRS):
        yield (
            f"<article><header><code>{_safe(pair.row.id)}</code></header><p class=q>{_short(pair.row.asked)}</p>"
            f"<p class='a good'>{_short(pair.chosen)}</p><p class='a worse'>{_short(pair.rejected)}</p></article>"
        )


def _failures(summary: Summary) -> Iterator[str]:
    failures = _drawn(summary.account.failures, _FAILURES)
    if not failures:
        return
    yield f"<h2>Failures ({len(failures)} of {len(summary.account.failures):,}; all in failures.jsonl)</h2>"
    yield "<table class=list><tr><th>entry</th><th>reason</th><th>what was written</th></tr>"
    for failure in failures:
        reason = _safe(failure.reason) + (f"<br><small>{_short(failure.detail, 160)}</small>" if failure.detail else "")
        yield f"<tr><td><code>{_safe(failure.id)}</code></td><td>{reason}</td><td>{_short(failure.text, 240)}</td></tr>"
    yield "</table>"


def _drawn(things: Sequence[Any], count: int) -> list[Any]:
    """Some of them, the same ones every time, in order."""
    if len(things) <= count:
        return list(things)
    places = sorted(random.Random(0).sample(range(len(things)), count))
    return [things[place] for place in places]


_PAGE = """\
<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title><style>{style}</style></head><body><main>
{body}
</main></body></html>
"""
