"""Runs against each other: the same samples paired, differences with intervals, wins, losses. Pure; page.py draws."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from tunesmith.core.errors import TunesmithError
from tunesmith.evaluation.intervals import PairedDifference, holm, paired_bootstrap
from tunesmith.evaluation.run_scores import Key, RunScores, ScoredSample

ALPHA = 0.05
SHOWN_SAMPLES = 20


@dataclass(frozen=True, slots=True)
class Comparison:
    """One metric of one run against the same of the first run.

    Attributes:
        kind: predictions or questions.
        metric: its name; more is better.
        first: name of the first run.
        second: name of the other run.
        count: samples that both have.
        unpaired: samples that only one of them has.
        first_mean: over the samples that both have.
        second_mean: likewise.
        difference: second minus first.
        p_value: adjusted for the number of runs.
    """

    kind: str
    metric: str
    first: str
    second: str
    count: int
    unpaired: int
    first_mean: float
    second_mean: float
    difference: PairedDifference
    p_value: float

    @property
    def verdict(self) -> str:
        """better, worse, or not told apart."""
        if self.p_value >= ALPHA:
            return "not told apart"
        return "better" if self.difference.mean > 0 else "worse"

    def as_json(self) -> dict[str, Any]:
        """Plain values."""
        values = asdict(self)
        difference = values.pop("difference")
        low, high = difference.pop("low"), difference.pop("high")
        mean, p_alone = difference.pop("mean"), difference.pop("p_value")
        return {
            **values,
            "difference": mean,
            "interval_95": [low, high],
            "p_value": self.p_value,
            "p_value_alone": p_alone,
            **difference,
            "verdict": self.verdict,
        }


@dataclass(frozen=True, slots=True)
class SamplePair:
    """One sample in two runs.

    Attributes:
        change: of the metric, second minus first.
        first: in the first run.
        second: in the other.
    """

    change: float
    first: ScoredSample
    second: ScoredSample


def compare_runs(runs: Sequence[RunScores], *, seed: int = 0, resamples: int = 10_000) -> list[Comparison]:
    """Each run against the first, on every metric that both have of the same samples.

    Raises:
        TunesmithError: fewer than two runs, or nothing that they share.
    """
    if len(runs) < 2:
        raise TunesmithError("a comparison takes two runs or more")
    first = runs[0]
    found: dict[tuple[str, str], list[tuple[RunScores, int, list[float], list[float]]]] = {}
    for other in runs[1:]:
        for kind, samples in first.samples.items():
            shared = [key for key in samples if key in other.samples.get(kind, {})]
            unpaired = len(samples) + len(other.samples.get(kind, {})) - 2 * len(shared)
            for metric in _metrics(first, other, kind, shared):
                ours = [samples[key].scores[metric] for key in shared]
                theirs = [other.samples[kind][key].scores[metric] for key in shared]
                found.setdefault((kind, metric), []).append((other, unpaired, ours, theirs))
    comparisons: list[Comparison] = []
    for (kind, metric), entries in found.items():
        tests = [paired_bootstrap(ours, theirs, seed=seed, resamples=resamples) for _, _, ours, theirs in entries]
        for (other, unpaired, ours, theirs), test, p_value in zip(
            entries, tests, holm([test.p_value for test in tests]), strict=True
        ):
            count = len(ours)
            means = sum(ours) / count, sum(theirs) / count
            comparisons.append(Comparison(kind, metric, first.name, other.name, count, unpaired, *means, test, p_value))
    return comparisons


def _metrics(first: RunScores, other: RunScores, kind: str, shared: Sequence[Key]) -> list[str]:
    """The metrics that every shared sample has in both runs."""
    if not shared:
        return []
    names = list(first.samples[kind][shared[0]].scores)
    tables = (first.samples[kind], other.samples[kind])
    return [name for name in names if all(name in table[key].scores for table in tables for key in shared)]


def biggest_changes(
    first: RunScores, other: RunScores, kind: str, metric: str, count: int = SHOWN_SAMPLES
) -> tuple[list[SamplePair], list[SamplePair]]:
    """The samples that gained most, and those that lost most."""
    pairs = [
        SamplePair(other.samples[kind][key].scores[metric] - sample.scores[metric], sample, other.samples[kind][key])
        for key, sample in first.samples[kind].items()
        if key in other.samples.get(kind, {})
    ]
    pairs.sort(key=lambda pair: pair.change)
    return [pair for pair in pairs[::-1] if pair.change > 0][:count], [pair for pair in pairs if pair.change < 0][
        :count
    ]


def table_lines(comparisons: Sequence[Comparison]) -> list[str]:
    """A table for the terminal."""
    head = ("metric", "run", "mean", "difference", "95 % interval", "p", "wins", "losses", "ties", "")
    rows = [head]
    for one in comparisons:
        test = one.difference
        rows.append((
            f"{one.metric}", one.second, f"{one.first_mean:.4g} -> {one.second_mean:.4g}", f"{test.mean:+.4g}",
            f"{test.low:+.4g} to {test.high:+.4g}", f"{one.p_value:.3g}", str(test.wins), str(test.losses),
            str(test.ties), one.verdict,
        ))  # fmt: skip
    widths = [max(len(row[place]) for row in rows) for place in range(len(head))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
