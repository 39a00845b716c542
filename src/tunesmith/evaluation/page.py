"""A comparison as one HTML page: everything in the file, nothing from the network."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from importlib import resources
from typing import Any

from tunesmith.evaluation.compare import Comparison, SamplePair, biggest_changes
from tunesmith.evaluation.run_scores import RunScores
from tunesmith.evaluation.svg import COLOURS, Interval, curve_plot, interval_plot

_KIND = {"better": "better", "worse": "worse", "not told apart": "open"}
_LONGEST = 1200
_STYLE = "page.css"


def comparison_page(
    runs: Sequence[RunScores], comparisons: Sequence[Comparison], keys: Mapping[str, Sequence[Any]]
) -> str:
    """The whole page.

    Args:
        runs: the first is what the others are held against.
        comparisons: of the metrics.
        keys: configuration key -> its value in each run, where they differ.
    """
    style = resources.files("tunesmith.evaluation").joinpath(_STYLE).read_text("utf-8")
    title = " against ".join([", ".join(run.name for run in runs[1:]), runs[0].name])
    sections = [
        _section("Runs", _runs(runs)),
        _section("Differences", _differences(comparisons)),
        _section("Configuration", _keys(runs, keys)),
        *(_section(f"Curve: {name}", curve_plot(curves)) for name, curves in _curves(runs).items()),
        _section("Numbers of the runs", _results(runs)),
        *_samples(runs, comparisons),
    ]
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{_e(title)}</title><style>{style}</style></head><body>"
        f"<h1>Comparison</h1>{_note(title)}{''.join(sections)}</body></html>\n"
    )


def _section(title: str, content: str) -> str:
    return f"<section><h2>{_e(title)}</h2>{content}</section>" if content else ""


def _runs(runs: Sequence[RunScores]) -> str:
    def counts(run: RunScores) -> str:
        return ", ".join(f"{len(found)} {kind}" for kind, found in run.samples.items()) or "no samples"

    rows = [
        (f'<span class="key" style="background:{COLOURS[i % len(COLOURS)]}"></span>{_e(run.name)}', counts(run),
         f"<code>{_e(str(run.folder))}</code>")
        for i, run in enumerate(runs)
    ]  # fmt: skip
    return _table(("run", "samples", "folder"), rows)


def _differences(comparisons: Sequence[Comparison]) -> str:
    if not comparisons:
        return '<p class="none">These runs share no scored samples, so only their numbers are side by side below.</p>'
    several = len({one.second for one in comparisons}) > 1
    rows, plots = [], []
    for scale in ("100", "1"):
        members = [one for one in comparisons if _scale(one) == scale]
        labels = [f"{one.metric} ({one.second})" if several else one.metric for one in members]
        intervals = [
            Interval(label, one.difference.low, one.difference.mean, one.difference.high, _KIND[one.verdict])
            for label, one in zip(labels, members, strict=True)
        ]
        plots += [interval_plot(intervals)] if intervals else []
    for one in comparisons:
        test = one.difference
        tag = f'<span class="tag {_KIND[one.verdict]}">{_e(one.verdict)}</span>'
        cells = (_n(one.first_mean), _n(one.second_mean), f"{test.mean:+.4g}", f"{test.low:+.4g} to {test.high:+.4g}")
        counts = (f"{one.p_value:.3g}", str(test.wins), str(test.losses), str(test.ties))
        rows.append((_e(one.metric), *([_e(one.second)] if several else []), *cells, *counts, tag))
    names = ("first", "second", "difference", "95 % interval", "p", "wins", "losses", "ties")
    head = ("metric", *(["run"] if several else []), *names, "")
    unpaired = sum({(one.second, one.kind): one.unpaired for one in comparisons}.values())
    note = (
        f"Second minus first on the same {comparisons[0].count} samples"
        f"{f'; {unpaired} samples that not both have are left out' if unpaired else ''}. More is better. "
        "Intervals and p-values: paired bootstrap."
    )
    return "".join(plots) + _table(head, rows, numbers=range(1 + several, 9 + several)) + _note(note)


def _scale(one: Comparison) -> str:
    """Metrics from 0 to 100 are drawn apart from those from 0 to 1."""
    return "100" if max(abs(one.first_mean), abs(one.second_mean), abs(one.difference.high)) > 2 else "1"


def _keys(runs: Sequence[RunScores], keys: Mapping[str, Sequence[Any]]) -> str:
    if not keys:
        return '<p class="none">No key differs, or the runs have no configuration beside them.</p>'
    rows = [(f"<code>{_e(name)}</code>", *(f"<code>{_e(_value(value))}</code>" for value in values))
            for name, values in keys.items()]  # fmt: skip
    return _table(("key", *(_e(run.name) for run in runs)), rows)


def _value(value: Any) -> str:
    if value is None:
        return "null"
    return ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


def _curves(runs: Sequence[RunScores]) -> dict[str, list[tuple[str, list[tuple[float, float]]]]]:
    names = [name for run in runs for name in run.curves]
    return {
        name: [(run.name, run.curves[name]) for run in runs if run.curves.get(name)] for name in dict.fromkeys(names)
    }


def _results(runs: Sequence[RunScores]) -> str:
    names = sorted({name for run in runs for name in run.results})
    rows = [(_e(name), *("" if name not in run.results else _n(run.results[name]) for run in runs)) for name in names]
    return _table(("", *(_e(run.name) for run in runs)), rows, numbers=range(1, len(runs) + 1)) if rows else ""


def _samples(runs: Sequence[RunScores], comparisons: Sequence[Comparison]) -> list[str]:
    """For each run the samples that changed most, by its first metric."""
    sections = []
    by_name = {run.name: run for run in runs}
    shown: set[tuple[str, str]] = set()
    for one in comparisons:
        if (one.second, one.kind) in shown or not (one.difference.wins or one.difference.losses):
            continue
        shown.add((one.second, one.kind))
        gains, losses = biggest_changes(runs[0], by_name[one.second], one.kind, one.metric)
        parts = [f"<h3>{_e(word)}</h3>{''.join(map(_sample, pairs))}"
                 for word, pairs in (("won", gains), ("lost", losses)) if pairs]  # fmt: skip
        title = f"Samples of {one.second} that changed most ({one.kind}, by {one.metric})"
        sections.append(_section(title, "".join(parts)))
    return sections


def _sample(pair: SamplePair) -> str:
    kind = "gain" if pair.change > 0 else "loss"
    texts = (
        ("prompt", pair.first.prompt), ("wanted", pair.first.label),
        ("first run", pair.first.predict), ("this run", pair.second.predict),
    )  # fmt: skip
    cells = "".join(f"<div><b>{name}</b><pre>{_e(_cut(text))}</pre></div>" for name, text in texts)
    opening = " ".join(pair.first.prompt.split())
    head = opening if len(opening) <= 110 else f"…{opening[-110:]}"
    change = f'<span class="change {kind}">{pair.change:+.3g}</span>'
    return f'<details><summary>{change}{_e(head)}</summary><div class="texts">{cells}</div></details>'


def _cut(text: str) -> str:
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST // 2]}\n[…]\n{text[-_LONGEST // 2 :]}"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]], numbers: Sequence[int] = ()) -> str:
    def cells(tag: str, row: Sequence[str]) -> str:
        return "".join(
            f'<{tag} class="number">{cell}</{tag}>' if i in numbers else f"<{tag}>{cell}</{tag}>"
            for i, cell in enumerate(row)
        )

    body = "".join(f"<tr>{cells('td', row)}</tr>" for row in rows)
    return f'<div class="scroll"><table><thead><tr>{cells("th", head)}</tr></thead><tbody>{body}</tbody></table></div>'


def _note(text: str) -> str:
    return f'<p class="note">{_e(text)}</p>'


def _n(value: float) -> str:
    return f"{value:.5g}"


def _e(text: str) -> str:
    return html.escape(text)
