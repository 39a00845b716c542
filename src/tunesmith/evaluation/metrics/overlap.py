"""Metrics that compare an answer's words with a reference's: BLEU, ROUGE, chrF, token F1, and equality."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from tunesmith.config.metrics import CLASSIC
from tunesmith.evaluation.metrics.base import MeanMetric, Metric, Options, Sample, Scores
from tunesmith.evaluation.metrics.bleu import sentence_bleu
from tunesmith.evaluation.metrics.corpus import BleuTotals, ChrfTotals, bleu_tokens
from tunesmith.evaluation.metrics.rouge import common_length
from tunesmith.evaluation.metrics.text import score_pair
from tunesmith.evaluation.metrics.words import tokens, words


class Classic(MeanMetric):
    """The four scores that `predict_with_generate` has always reported, or some of them."""

    def __init__(self, names: Sequence[str] = CLASSIC) -> None:
        self.names = tuple(names)
        super().__init__()

    def score(self, sample: Sample) -> Mapping[str, float]:
        """0 to 100."""
        scores = score_pair(sample.predict, sample.label)
        return {name: scores[name] for name in self.names}


class Bleu(MeanMetric):
    """Mean of each answer's BLEU-4 over words, 0 to 100; the best of its references counts."""

    names = ("bleu",)

    def __init__(self, options: Options) -> None:
        super().__init__()
        self._language = options.language

    def score(self, sample: Sample) -> Mapping[str, float]:
        """BLEU-4 of one answer, smoothed; an answer or reference without words gives 0."""
        ours = tokens(sample.predict, self._language)
        theirs = [tokens(text, self._language) for text in sample.references]
        return {"bleu": 100 * max((sentence_bleu(ours, label) for label in theirs if ours and label), default=0.0)}


class Rouge(MeanMetric):
    """ROUGE-1, -2 and -L over words in lower case, F1, 0 to 100; the best of its references counts."""

    names = ("rouge1", "rouge2", "rougeL")

    def __init__(self, options: Options) -> None:
        super().__init__()
        self._language = options.language

    def score(self, sample: Sample) -> Mapping[str, float]:
        """Clipped counts of n-grams (Lin 2004); the longest common subsequence for rougeL."""
        ours = words(sample.predict, self._language)
        found = [self._against(ours, words(text, self._language)) for text in sample.references]
        return {name: 100 * max(scores[i] for scores in found) for i, name in enumerate(self.names)}

    def _against(self, ours: list[str], theirs: list[str]) -> tuple[float, float, float]:
        def grams(items: list[str], order: int) -> Counter[tuple[str, ...]]:
            return Counter(tuple(items[start : start + order]) for start in range(len(items) - order + 1))

        pairs = [(grams(ours, order), grams(theirs, order)) for order in (1, 2)]
        one, two = (f1((left & right).total(), left.total(), right.total()) for left, right in pairs)
        return one, two, f1(common_length(theirs, ours), len(ours), len(theirs))


class TokenF1(MeanMetric):
    """F1 of the words that an answer and its reference share (as for SQuAD), 0 to 1."""

    names = ("token_f1",)

    def __init__(self, options: Options) -> None:
        super().__init__()
        self._language = options.language

    def score(self, sample: Sample) -> Mapping[str, float]:
        """Both without words are equal."""
        ours = Counter(words(sample.predict, self._language))
        best = 0.0
        for text in sample.references:
            theirs = Counter(words(text, self._language))
            equal = not ours and not theirs
            best = max(best, 1.0 if equal else f1((ours & theirs).total(), ours.total(), theirs.total()))
        return {"token_f1": best}


class CorpusBleu(Metric):
    """BLEU of all answers together, as sacrebleu computes it, 0 to 100."""

    def __init__(self, options: Options) -> None:
        self._language = options.language
        self._totals = BleuTotals()

    def add(self, sample: Sample) -> Scores:
        """Adds the counts; a sample has no score of its own."""
        theirs = [bleu_tokens(text, self._language) for text in sample.references]
        self._totals.add(bleu_tokens(sample.predict, self._language), theirs)
        return {}

    def result(self) -> dict[str, float]:
        """Of the sums."""
        return {"corpus_bleu": self._totals.score()}


class Chrf(Metric):
    """chrF of all answers together, as sacrebleu computes it, 0 to 100."""

    def __init__(self, options: Options) -> None:
        del options  # characters need no language
        self._totals = ChrfTotals()

    def add(self, sample: Sample) -> Scores:
        """Adds the counts; the sample's own chrF."""
        return {"chrf": round(self._totals.add(sample.predict, sample.references), 4)}

    def result(self) -> dict[str, float]:
        """Of the sums."""
        return {"chrf": self._totals.score()}


class ExactMatch(MeanMetric):
    """Whether the answer is a reference, blanks aside."""

    names = ("exact_match",)

    def score(self, sample: Sample) -> Mapping[str, bool]:
        """Runs of blanks count as one."""
        ours = sample.predict.split()
        return {"exact_match": any(ours == text.split() for text in sample.references)}


class Contains(MeanMetric):
    """Whether a reference stands somewhere in the answer; case does not count."""

    names = ("contains",)

    def score(self, sample: Sample) -> Mapping[str, bool]:
        """An empty reference stands nowhere."""
        ours = sample.predict.casefold()
        theirs = [text.strip().casefold() for text in sample.references]
        return {"contains": any(text in ours for text in theirs if text)}


def f1(overlap: int, n_ours: int, n_theirs: int) -> float:
    """Harmonic mean of precision and recall; 0 without overlap."""
    return 2 * overlap / (n_ours + n_theirs) if overlap else 0.0
