"""Statistics of scores: confidence intervals and tests. Pure functions of numbers; numpy, no models, no files."""

from __future__ import annotations

import math

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
