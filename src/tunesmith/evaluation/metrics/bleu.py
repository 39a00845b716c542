"""BLEU of one answer against one reference, smoothed for short texts. Corpus BLEU is not here."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence


def _matches(prediction: Sequence[str], reference: Sequence[str], order: int) -> tuple[int, int]:
    """(n-grams of the prediction that the reference holds, each at most as often as there; all of the prediction's)."""

    def count(items: Sequence[str]) -> Counter[tuple[str, ...]]:
        return Counter(tuple(items[start : start + order]) for start in range(len(items) - order + 1))

    ours = count(prediction)
    return (ours & count(reference)).total(), ours.total()


def sentence_bleu(prediction: Sequence[str], reference: Sequence[str], max_order: int = 4) -> float:
    """BLEU in 0..1 (Papineni et al. 2002) with uniform weights and NIST's geometric smoothing.

    The k-th order without a match counts as 1 / 2**k matches (method 3 of Chen and Cherry 2014). An order for which the
    prediction is too short counts as one n-gram without a match. Nothing in common gives 0.

    Args:
        prediction: tokens; characters when a string is given.
        reference: tokens of the one reference.
        max_order: longest n-gram.
    """
    pairs = [_matches(prediction, reference, order) for order in range(1, max_order + 1)]
    if pairs[0][0] == 0:
        return 0.0
    logs, unmatched = [], 0
    for matched, total in pairs:
        unmatched += matched == 0
        logs.append(math.log(matched / max(1, total) if matched else 1 / (2**unmatched * max(1, total))))
    brevity = min(1.0, math.exp(1 - len(reference) / len(prediction)))
    return brevity * math.exp(math.fsum(value / max_order for value in logs))
