"""Statistics of scores: confidence intervals and tests. Pure functions of numbers; numpy, no models, no files."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

Z95 = 1.959963984540054
"""The normal distribution's 97.5 % point."""


def wilson(correct: int, total: int) -> tuple[float, float]:
    """95 % confidence interval of a share (Wilson 1927): right for few questions and for shares near 0 and 1.

    Args:
        correct: how many of `total`.
        total: 0 gives (0, 1).
    """
    if total == 0:
        return 0.0, 1.0
    share, spread = correct / total, Z95**2 / total
    centre = share + spread / 2
    half = Z95 * math.sqrt(share * (1 - share) / total + spread / (4 * total))
    return max(0.0, (centre - half) / (1 + spread)), min(1.0, (centre + half) / (1 + spread))


@dataclass(frozen=True, slots=True)
class PairedDifference:
    """How the same samples fare in two runs.

    Attributes:
        mean: of the differences, second minus first.
        low: lower end of the mean's 95 % interval.
        high: upper end.
        p_value: two-sided, of no difference.
        wins: samples in which the second is better.
        losses: in which it is worse.
        ties: in which both are the same.
    """

    mean: float
    low: float
    high: float
    p_value: float
    wins: int
    losses: int
    ties: int


def paired_bootstrap(
    first: Sequence[float], second: Sequence[float], *, seed: int = 0, resamples: int = 10_000
) -> PairedDifference:
    """Compares two runs on the same samples (Koehn 2004): samples are drawn again with their pairs kept together.

    The interval holds 95 % of the resampled means (percentiles). The p-value is twice the share of resampled means on
    the other side of 0, counted with one more, so it is never 0.

    Args:
        first: scores of one run, in the order of samples.
        second: scores of the other; more is better.
        seed: of the resampling.
        resamples: how often it is drawn.
    """
    differences = np.asarray(second, dtype=float) - np.asarray(first, dtype=float)
    wins, losses = int((differences > 1e-12).sum()), int((differences < -1e-12).sum())
    ties = len(differences) - wins - losses
    if not wins and not losses:
        return PairedDifference(0.0, 0.0, 0.0, 1.0, wins, losses, ties)
    rng = np.random.default_rng(seed)
    means = np.empty(resamples)
    step = max(1, 4_000_000 // len(differences))
    for start in range(0, resamples, step):
        chosen = rng.integers(0, len(differences), (min(step, resamples - start), len(differences)))
        means[start : start + step] = differences[chosen].mean(axis=1)
    low, high = float(np.percentile(means, 2.5)), float(np.percentile(means, 97.5))
    other_side = min(int((means <= 0).sum()), int((means >= 0).sum()))
    p_value = min(1.0, 2 * (other_side + 1) / (resamples + 1))
    return PairedDifference(float(differences.mean()), low, high, p_value, wins, losses, ties)


def holm(p_values: Sequence[float]) -> list[float]:
    """p-values of several comparisons, raised so that together they err as seldom as one (Holm 1979)."""
    order = sorted(range(len(p_values)), key=lambda i: p_values[i])
    adjusted = [0.0] * len(p_values)
    highest = 0.0
    for rank, index in enumerate(order):
        highest = max(highest, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = highest
    return adjusted
