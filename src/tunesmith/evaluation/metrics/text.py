"""What `predict_with_generate` reports: BLEU-4 over characters, ROUGE over jieba's words, 0 to 100."""

from __future__ import annotations

import logging

from tunesmith.evaluation.metrics.bleu import sentence_bleu
from tunesmith.evaluation.metrics.rouge import rouge_l, rouge_n, words_of

NAMES = ("bleu-4", "rouge-1", "rouge-2", "rouge-l")


def _cut(text: str) -> str:
    """Words parted by blanks; jieba knows Chinese words and leaves other scripts at their blanks."""
    import jieba

    jieba.setLogLevel(logging.WARNING)
    return " ".join(jieba.cut(text))


def score_pair(prediction: str, label: str) -> dict[str, float]:
    """The four scores of one answer, 0 to 100, rounded to 4 digits; an empty prediction or label scores 0."""
    ours, theirs = _cut(prediction), _cut(label)
    scores = dict.fromkeys(NAMES, 0.0)
    if prediction and label:
        scores["bleu-4"] = round(sentence_bleu(prediction, label) * 100, 4)
    if ours.split() and theirs.split():
        left, right = words_of(ours), words_of(theirs)
        scores["rouge-1"] = round(rouge_n(left, right, 1) * 100, 4)
        scores["rouge-2"] = round(rouge_n(left, right, 2) * 100, 4)
        scores["rouge-l"] = round(rouge_l(left, right) * 100, 4)
    return scores
