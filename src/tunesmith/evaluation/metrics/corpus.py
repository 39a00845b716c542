"""BLEU and chrF of a whole set of answers, equal to sacrebleu's defaults: sums of counts, one score at the end."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Sequence

from tunesmith.evaluation.metrics.words import has_han, tokens

_ORDER = 4
_CHRF_ORDER = 6
_BETA2 = 4.0
"""beta = 2: recall counts twice."""

# mteval-v13a: marks stand alone; a dot or comma does unless digits are on both sides; a dash does behind a digit.
_MARKS = re.compile(r"([{-~\[-` -&(-+:-@/])")
_DOT_BEHIND = re.compile(r"([^0-9])([.,])")
_DOT_BEFORE = re.compile(r"([.,])([^0-9])")
_DASH = re.compile(r"([0-9])(-)")
_ENTITIES = (("&quot;", '"'), ("&amp;", "&"), ("&lt;", "<"), ("&gt;", ">"))
_CHINESE = re.compile(
    "[\u2001-\u2a6d\u2e80-\u2fdf\u2ff0-\u303f\u3100-\u312f\u31a0-\u31ef\u3200-\u4db5\u4e00-\u9fbb"
    "\uf900-\ufa2d\ufa30-\ufa6a\ufa70-\ufad9\ufe10-\ufe1f\ufe30-\ufe4f\uff00-\uffef]"
)
"""What sacrebleu sets apart in Chinese text; its ranges beyond U+FFFF are read by it as U+2001 to U+2A6D."""


def bleu_tokens(text: str, language: str = "auto") -> list[str]:
    """Tokens as sacrebleu's `13a` makes them; as its `zh` where the text is Chinese.

    Args:
        text: one answer or reference.
        language: auto decides by the text's letters; zh; characters and words as in `words.tokens`.
    """
    if language in ("characters", "words"):
        return tokens(text, language)
    if language == "zh" or has_han(text):
        return _split_marks(_CHINESE.sub(r" \g<0> ", text.strip()))
    text = text.replace("<skipped>", "").replace("-\n", "").replace("\n", " ")
    for entity, character in _ENTITIES:
        text = text.replace(entity, character)
    return _split_marks(f" {text} ")


def _split_marks(text: str) -> list[str]:
    text = _MARKS.sub(r" \1 ", text)
    text = _DOT_BEHIND.sub(r"\1 \2 ", text)
    text = _DOT_BEFORE.sub(r" \1 \2", text)
    return _DASH.sub(r"\1 \2 ", text).split()


def _grams(items: Sequence[str] | str, order: int) -> Counter[tuple[str, ...]]:
    return Counter(tuple(items[start : start + order]) for start in range(len(items) - order + 1))


class BleuTotals:
    """Counts of n-grams of all answers (Papineni et al. 2002), exponential smoothing."""

    def __init__(self) -> None:
        self._correct = [0] * _ORDER
        self._total = [0] * _ORDER
        self._ours = 0
        self._theirs = 0

    def add(self, ours: Sequence[str], references: Sequence[Sequence[str]]) -> None:
        """Adds one answer; an n-gram counts as often as in the reference that has it most often."""
        self._ours += len(ours)
        self._theirs += min((abs(len(label) - len(ours)), len(label)) for label in references)[1]
        for order in range(1, _ORDER + 1):
            grams = _grams(ours, order)
            most: Counter[tuple[str, ...]] = Counter()
            for label in references:
                most |= _grams(label, order)
            self._correct[order - 1] += (grams & most).total()
            self._total[order - 1] += grams.total()

    def score(self) -> float:
        """0 to 100; nothing in common gives 0, and so does an order of which there is no n-gram."""
        if not any(self._correct) or not all(self._total):
            return 0.0
        logs, smooth = 0.0, 1.0
        for correct, total in zip(self._correct, self._total, strict=True):
            if correct == 0:
                smooth *= 2
            logs += math.log(correct / total if correct else 1 / (smooth * total))
        brevity = min(1.0, math.exp(1 - self._theirs / self._ours))
        return 100 * brevity * math.exp(logs / _ORDER)


class ChrfTotals:
    """Counts of character n-grams up to 6, blanks left out (Popović 2015), beta 2."""

    def __init__(self) -> None:
        self._counts = [[0, 0, 0] for _ in range(_CHRF_ORDER)]

    def add(self, predict: str, references: Sequence[str]) -> float:
        """Adds one answer with the reference that suits it best; returns their chrF."""
        candidates = [_chrf_counts(predict, label) for label in references]
        best = max(candidates, key=_chrf)
        for total, counts in zip(self._counts, best, strict=True):
            for place, count in enumerate(counts):
                total[place] += count
        return _chrf(best)

    def score(self) -> float:
        """0 to 100."""
        return _chrf(self._counts)


def _chrf_counts(predict: str, label: str) -> list[list[int]]:
    """For each order: n-grams of the answer, of the reference, in both."""
    ours, theirs = "".join(predict.split()), "".join(label.split())
    found = []
    for order in range(1, _CHRF_ORDER + 1):
        left, right = _grams(ours, order), _grams(theirs, order)
        # sacrebleu counts an order only where both texts have n-grams of it.
        found.append([left.total() if right else 0, right.total(), (left & right).total()])
    return found


def _chrf(counts: Sequence[Sequence[int]]) -> float:
    known = [(match / ours, match / theirs) for ours, theirs, match in counts if ours and theirs]
    if not known:
        return 0.0
    precision = sum(pair[0] for pair in known) / len(known)
    recall = sum(pair[1] for pair in known) / len(known)
    weighted = _BETA2 * precision + recall
    return 100 * (1 + _BETA2) * precision * recall / weighted if weighted else 0.0
