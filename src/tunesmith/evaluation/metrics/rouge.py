"""ROUGE-1, ROUGE-2 and ROUGE-L over words, as Chinese-aware evaluations count them."""

from __future__ import annotations

import re
from collections.abc import Sequence

_SENTENCE_ENDS = (
    (re.compile(r"([。！？?])([^”’])"), r"\1\n\2"),
    (re.compile(r"(\.{6})([^”’])"), r"\1\n\2"),
    (re.compile(r"(…{2})([^”’])"), r"\1\n\2"),
    (re.compile(r"([。！？?][”’])([^，。！？?])"), r"\1\n\2"),
)
_EPSILON = 1e-8


def words_of(text: str) -> list[str]:
    """The words of a text whose words are parted by blanks.

    A sentence of blanks alone counts as one empty word: rouge_chinese counts so, and scores are to be comparable.
    """
    for pattern, replacement in _SENTENCE_ENDS:
        text = pattern.sub(replacement, text)
    sentences = [" ".join(sentence.split()) for sentence in text.rstrip().split("\n") if sentence]
    return [word for sentence in sentences for word in sentence.split(" ")]


def _f1(overlap: int, n_prediction: int, n_reference: int) -> float:
    precision = overlap / n_prediction if n_prediction else 0.0
    recall = overlap / n_reference if n_reference else 0.0
    return 2.0 * ((precision * recall) / (precision + recall + _EPSILON))


def rouge_n(prediction: Sequence[str], reference: Sequence[str], order: int) -> float:
    """F1 in 0..1 over the sets of n-grams: an n-gram that comes twice counts once."""

    def grams(words: Sequence[str]) -> set[tuple[str, ...]]:
        return {tuple(words[start : start + order]) for start in range(len(words) - order + 1)}

    ours, theirs = grams(prediction), grams(reference)
    return _f1(len(ours & theirs), len(ours), len(theirs))


def common_length(left: Sequence[str], right: Sequence[str]) -> int:
    """Length of the longest common subsequence, bit-parallel (Hyyrö 2004): one big-integer step a word of `right`."""
    where: dict[str, int] = {}
    for position, word in enumerate(left):
        where[word] = where.get(word, 0) | 1 << position
    full = (1 << len(left)) - 1
    row = full
    for word in right:
        hits = row & where.get(word, 0)
        row = ((row + hits) | (row - hits)) & full
    return len(left) - row.bit_count()


def rouge_l(prediction: Sequence[str], reference: Sequence[str]) -> float:
    """F1 in 0..1 of the longest common subsequence of all words."""
    return _f1(common_length(reference, prediction), len(prediction), len(reference))
