"""What a model lost by tuning, out of the probe before and after: figures, tests, a verdict. Asks no model.

The question is not whether anything changed: all training changes something, and over hundreds of items the smallest
common shift is significant. It is whether more than a harmless amount was lost. So the hypothesis that is tested says
that the mean loss of an item is at most MARGIN; only where it can be rejected the verdict is that the model forgot.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from typing import Any

from tunesmith.evaluation.intervals import holm
from tunesmith.evaluation.probe_items import FIELDS, ProbeScore

MARGIN = 0.1
"""Nats: right answers that become 10 % less likely are no loss that anybody notices."""
ALPHA = 0.01
"""How often, at most, a model that lost no more than the margin is said to have forgotten."""
CLIP = 3.0
"""Nats: no single item counts for more, in either direction."""
ALL = "all"
FORGOTTEN, KEPT, UNCLEAR = "forgotten", "no forgetting", "not clear"


@dataclass(frozen=True, slots=True)
class FieldLoss:
    """What was lost in one field, or in all.

    Attributes:
        field: its name.
        items: how many there are.
        before: mean worth of an item (nats; 0 is perfect) before tuning.
        after: after it.
        loss: mean of the items' losses (before minus after, clipped).
        low: lower bound of the mean loss, one-sided, at level ALPHA.
        high: upper bound likewise.
        p_value: of a mean loss of at most MARGIN, adjusted for the number of fields.
        right_before: share of questions answered right before tuning; None where there are none.
        right_after: after it.
    """

    field: str
    items: int
    before: float
    after: float
    loss: float
    low: float
    high: float
    p_value: float
    right_before: float | None
    right_after: float | None

    @property
    def is_forgotten(self) -> bool:
        """Whether more than the margin was lost, beyond doubt."""
        return self.p_value < ALPHA


@dataclass(frozen=True, slots=True)
class Verdict:
    """The losses, all items first, then field by field."""

    losses: tuple[FieldLoss, ...]

    @property
    def words(self) -> str:
        """forgotten, no forgetting, or not clear."""
        if self.forgotten:
            return FORGOTTEN
        return KEPT if self.losses[0].high < MARGIN else UNCLEAR

    @property
    def forgotten(self) -> tuple[str, ...]:
        """The fields in which the model forgot; `all` stands for the whole."""
        return tuple(loss.field for loss in self.losses if loss.is_forgotten)

    def as_json(self) -> dict[str, Any]:
        """Plain values."""
        losses = [{**asdict(loss), "forgotten": loss.is_forgotten} for loss in self.losses]
        rules = {"margin": MARGIN, "alpha": ALPHA, "clip": CLIP}
        return {"verdict": self.words, "forgotten": list(self.forgotten), "rules": rules, "losses": losses}


def judge(before: Mapping[str, ProbeScore], after: Mapping[str, ProbeScore]) -> Verdict:
    """Compares the same items before and after.

    Args:
        before: scores by the items' ids.
        after: the same items.
    """
    groups = {ALL: list(before), **{field: [i for i in before if before[i].field == field] for field in FIELDS}}
    found = {field: [(before[i], after[i]) for i in ids] for field, ids in groups.items() if len(ids) > 1}
    tests = {field: margin_test([loss_of(*pair) for pair in pairs]) for field, pairs in found.items()}
    adjusted = holm([test.p_value for test in tests.values()])
    return Verdict(
        tuple(
            _loss(field, found[field], test, p_value)
            for (field, test), p_value in zip(tests.items(), adjusted, strict=True)
        )
    )


def loss_of(before: ProbeScore, after: ProbeScore) -> float:
    """How much less an item is worth after tuning (nats), within the clip."""
    return max(-CLIP, min(CLIP, before.worth - after.worth))


def _loss(field: str, pairs: Sequence[tuple[ProbeScore, ProbeScore]], test: MarginTest, p_value: float) -> FieldLoss:
    n = len(pairs)
    judged = [(first.is_right, second.is_right) for first, second in pairs if first.is_right is not None]
    shares = [sum(map(bool, side)) / len(judged) for side in zip(*judged, strict=True)] if judged else [None, None]
    return FieldLoss(
        field=field,
        items=n,
        before=math.fsum(first.worth for first, _ in pairs) / n,
        after=math.fsum(second.worth for _, second in pairs) / n,
        loss=test.mean,
        low=test.low,
        high=test.high,
        p_value=p_value,
        right_before=shares[0],
        right_after=shares[1],
    )


@dataclass(frozen=True, slots=True)
class MarginTest:
    """A mean and whether it is above the margin.

    Attributes:
        mean: of the numbers.
        low: one-sided lower bound at level ALPHA.
        high: one-sided upper bound at level ALPHA.
        p_value: of a true mean of at most MARGIN.
    """

    mean: float
    low: float
    high: float
    p_value: float


def margin_test(losses: Sequence[float]) -> MarginTest:
    """Student's t for a mean above MARGIN, on at least two numbers, kept from false alarms by skewed ones.

    Where most items lose a little and few gain much, t alone errs four times as often as it says. Hall's monotone
    transformation (1992, JRSS B 54, "On the removal of skewness by transformation") mends that; the smaller of both
    statistics counts.
    """
    n = len(losses)
    mean = math.fsum(losses) / n
    spread = math.fsum((value - mean) ** 2 for value in losses) / (n - 1)
    if spread == 0:
        return MarginTest(mean, mean, mean, 0.0 if mean > MARGIN else 1.0)
    effect = (mean - MARGIN) / math.sqrt(spread)
    skew = math.fsum((value - mean) ** 3 for value in losses) / n / spread**1.5
    corrected = effect + skew * effect**2 / 3 + skew**2 * effect**3 / 27 + skew / (6 * n)
    reach = t_quantile(ALPHA, n - 1) * math.sqrt(spread / n)
    return MarginTest(mean, mean - reach, mean + reach, t_tail(min(effect, corrected) * math.sqrt(n), n - 1))


def t_tail(t: float, freedom: int) -> float:
    """Probability that Student's t with so many degrees of freedom is above t.

    With t = sqrt(freedom) tan(a) the density becomes proportional to cos(a) ** (freedom - 1); Simpson's rule.
    """
    if t < 0:
        return 1 - t_tail(-t, freedom)
    steps = 1000
    begin = math.atan(t / math.sqrt(freedom))
    width = (math.pi / 2 - begin) / steps
    heights = [max(0.0, math.cos(begin + width * k)) ** (freedom - 1) for k in range(steps + 1)]
    area = width / 3 * (heights[0] + heights[-1] + 4 * sum(heights[1:-1:2]) + 2 * sum(heights[2:-1:2]))
    scale = math.exp(math.lgamma((freedom + 1) / 2) - math.lgamma(freedom / 2)) / math.sqrt(math.pi)
    return min(1.0, scale * area)


@lru_cache(maxsize=64)
def t_quantile(tail: float, freedom: int) -> float:
    """The t that is exceeded with probability `tail` (below one half), by bisection."""
    low, high = 0.0, 1e4
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if t_tail(middle, freedom) > tail else (low, middle)
    return (low + high) / 2


def table_lines(verdict: Verdict) -> list[str]:
    """The verdict and a table for the terminal."""
    head = ("field", "items", "loss (nats)", "at least", "at most", "right before", "after", "p", "")
    rows: list[tuple[str, ...]] = [head]
    for one in verdict.losses:
        shares = ["-" if share is None else f"{share:.0%}" for share in (one.right_before, one.right_after)]
        rows.append((
            one.field.replace("_", " "), str(one.items), f"{one.loss:+.3f}", f"{one.low:+.3f}", f"{one.high:+.3f}",
            *shares, f"{one.p_value:.2g}", FORGOTTEN if one.is_forgotten else "",
        ))  # fmt: skip
    widths = [max(len(row[place]) for row in rows) for place in range(len(head))]
    table = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    return [f"verdict: {in_words(verdict)}", "", *table]


def in_words(verdict: Verdict) -> str:
    """The verdict as a sentence."""
    whole = verdict.losses[0]
    lost = f"items lost {whole.loss:+.3f} nats in the mean"
    if verdict.words == FORGOTTEN:
        fields = [field.replace("_", " ") for field in verdict.forgotten if field != ALL]
        where = f", above all in {', '.join(fields)}" if fields else ", spread over all fields"
        return f"forgotten: {lost}{where}; up to {MARGIN} is harmless"
    if verdict.words == KEPT:
        return f"no forgetting: {lost}, and surely less than {MARGIN}"
    return f"not clear: {lost}, at most {whole.high:+.3f}; up to {MARGIN} is harmless"
