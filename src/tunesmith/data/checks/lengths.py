"""Row lengths as numbers, as bars of text, and as a picture."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

Array = Any
_BARS = 12
_MOST_PLOTS = 6
_COLUMNS = 50


@dataclass(frozen=True, slots=True)
class Bar:
    """Rows of `first` to `last` tokens."""

    first: int
    last: int
    rows: int


def bars(lengths: Array) -> list[Bar]:
    """A dozen bars of round width; the last one holds the few rows that are far longer than the others, too."""
    values = np.asarray(lengths)
    if not len(values):
        return []
    top = int(values.max())
    usual = int(np.percentile(values, 99))
    step = _round_up(max(1, -(-(top if top <= 2 * usual else usual) // _BARS)))
    first = int(values.min() - 1) // step
    last = (top - 1) // step if top <= 2 * usual else max((usual - 1) // step, first)
    counts = np.bincount(((values - 1) // step).clip(first, last) - first, minlength=last - first + 1)
    ends = [(place + 1) * step for place in range(first, last)] + [max(top, (last + 1) * step)]
    return [
        Bar((first + index) * step + 1, end, int(count))
        for index, (end, count) in enumerate(zip(ends, counts, strict=True))
    ]


def _round_up(value: int) -> int:
    """The next of 1, 2, 5, 10, 20, 50, ..."""
    power = 1
    while True:
        for digit in (1, 2, 5):
            if digit * power >= value:
                return digit * power
        power *= 10


def bar_lines(lengths: Array, width: int = 40) -> list[str]:
    """The bars as text; the longest takes `width` characters."""
    found = bars(lengths)
    peak = max((bar.rows for bar in found), default=1)
    margin = len(f"{found[-1].last:,}") if found else 0
    return [
        f"{bar.first:>{margin},} - {bar.last:>{margin},} tokens | "
        f"{'#' * -(-bar.rows * width // peak):<{width}} {bar.rows:,}"
        for bar in found
    ]


def percentiles(lengths: Array) -> dict[str, int]:
    """Half of the rows are not longer than `p50`, and so on; empty without rows."""
    values = np.asarray(lengths)
    if not len(values):
        return {}
    shares = (50, 90, 99)
    found = np.percentile(values, shares, method="inverted_cdf").tolist()
    return {f"p{share}": int(value) for share, value in zip(shares, found, strict=True)}


def plot_lengths(sets: Sequence[tuple[str, Array]], cutoff_len: int, path: Path) -> Path | None:
    """Draws row lengths, one panel a data set, with `cutoff_len` where it is near.

    Args:
        sets: (name, tokens of each row); the first six that have rows are drawn.
        cutoff_len: tokens of the longest row.
        path: where the picture goes.

    Returns:
        The picture's path; None where no data set has rows.
    """
    drawn = [(name, np.asarray(lengths)) for name, lengths in sets if len(lengths)][:_MOST_PLOTS]
    if not drawn:
        return None
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 0.8 + 2.4 * len(drawn)), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    panels: Any = figure.subplots(len(drawn), 1, squeeze=False)[:, 0]
    for axes, (name, values) in zip(panels, drawn, strict=True):
        _draw(axes, name, values, cutoff_len)
    panels[-1].set_xlabel("tokens of a row")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, format="png")
    return path


def _draw(axes: Any, name: str, values: Array, cutoff_len: int) -> None:
    top = int(values.max())
    step = -(-top // _COLUMNS)  # whole tokens, or columns would differ in how many lengths they hold
    axes.hist(values, bins=np.arange(0.5, top + step + 0.5, step), color="#14507a")
    middle = float(np.median(values))
    axes.axvline(middle, color="#d1782a", linewidth=1.4, label=f"median {middle:,.0f}")
    if cutoff_len <= 1.5 * top:
        axes.axvline(cutoff_len, color="#b03030", linewidth=1.4, linestyle="--", label=f"cutoff_len {cutoff_len:,}")
    axes.set_title(f"{name}: {len(values):,} rows, longest {top:,} tokens", loc="left", fontsize=10)
    axes.set_ylabel("rows")
    axes.set_xlim(left=0)
    axes.yaxis.get_major_locator().set_params(integer=True)
    axes.grid(alpha=0.25, axis="y")
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=9)
