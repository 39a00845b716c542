"""Our BLEU and ROUGE against nltk and rouge_chinese (no part of the product) and against hand-worked numbers."""

import math
import random

import pytest

from tunesmith.evaluation.metrics.base import Sample
from tunesmith.evaluation.metrics.bleu import sentence_bleu
from tunesmith.evaluation.metrics.rouge import common_length, rouge_l, rouge_n, words_of
from tunesmith.evaluation.metrics.scoreboard import Scoreboard
from tunesmith.evaluation.metrics.text import NAMES, score_pair

WORDS = [
    "the",
    "cat",
    "sat",
    "on",
    "mat",
    "a",
    "dog",
    "ran",
    "?",
    "!",
    "......",
    "……",
    "3.14",
    "\n",
    "  ",
    "A?b",
    '"x"',
]
CHINESE = [
    "今天",
    "天气",
    "很",
    "好",
    "。",
    "！",
    "？",
    "”",
    "“",
    "我们",
    "去",
    "公园",
    "散步",
    "，",
    "\n",
    " ",
    "’",
    "abc",
]


def random_text(rng: random.Random) -> str:
    kind = rng.random()
    if kind < 0.08:
        return rng.choice(["", " ", "\n", "a", "。", "?"])
    if kind < 0.5:
        return "".join(rng.choice(CHINESE) for _ in range(rng.randint(1, 25)))
    return " ".join(rng.choice(WORDS) for _ in range(rng.randint(1, 25)))


def reference_scores(prediction: str, label: str) -> dict[str, float]:
    """The same numbers from independent code."""
    import jieba
    from nltk.translate.bleu_score import SmoothingFunction, sentence_bleu
    from rouge_chinese import Rouge

    jieba.setLogLevel(30)
    hypothesis, reference = " ".join(jieba.cut(prediction)), " ".join(jieba.cut(label))
    scores = dict.fromkeys(NAMES, 0.0)
    if hypothesis.split() and reference.split():
        for name, value in Rouge().get_scores(hypothesis, reference)[0].items():
            scores[name] = round(value["f"] * 100, 4)
    bleu = sentence_bleu([list(label)], list(prediction), smoothing_function=SmoothingFunction().method3)
    scores["bleu-4"] = round(bleu * 100, 4)
    return scores


def test_equal_to_nltk_and_rouge_chinese_on_400_pairs():
    rng = random.Random(0)
    for _ in range(400):
        label = random_text(rng)
        prediction = label if rng.random() < 0.1 else random_text(rng)
        assert score_pair(prediction, label) == reference_scores(prediction, label), (prediction, label)


def test_bleu_by_hand():
    """'abcd' against 'abce': 3/4 unigrams, 2/3 bigrams, 1/2 trigrams, no 4-gram: 1/2 of 1; no brevity penalty."""
    expected = (3 / 4 * 2 / 3 * 1 / 2 * 1 / 2) ** 0.25
    assert sentence_bleu("abcd", "abce") == pytest.approx(expected)


def test_bleu_brevity_by_hand():
    """'ab' in 'abcd': unigrams 2/2, bigrams 1/1, then 1/2 and 1/4 of an n-gram that is not there; exp(1 - 4/2)."""
    assert sentence_bleu("ab", "abcd") == pytest.approx(math.exp(-1) * (1 / 2 * 1 / 4) ** 0.25)


def test_rouge_by_hand():
    """Sets {a,b,c} and {a,c,d}: 2 of 3 both ways; bigrams {ab,bc} and {ac,cd}: none; longest common 'a c': 2 of 3."""
    left, right = ["a", "b", "c"], ["a", "c", "d"]
    assert rouge_n(left, right, 1) == pytest.approx(2 / 3)
    assert rouge_n(left, right, 2) == 0
    assert rouge_l(left, right) == pytest.approx(2 / 3)


def test_common_length_equals_the_table():
    rng = random.Random(1)
    for _ in range(100):
        left = [rng.choice("abcd") for _ in range(rng.randint(0, 12))]
        right = [rng.choice("abcd") for _ in range(rng.randint(0, 12))]
        table = [[0] * (len(right) + 1) for _ in range(len(left) + 1)]
        for i, x in enumerate(left):
            for j, y in enumerate(right):
                table[i + 1][j + 1] = table[i][j] + 1 if x == y else max(table[i][j + 1], table[i + 1][j])
        assert common_length(left, right) == table[-1][-1]


@pytest.mark.parametrize(("prediction", "label"), [("", "x"), ("x", ""), ("", ""), (" ", "\n")])
def test_empty_scores_zero(prediction, label):
    assert score_pair(prediction, label) == dict.fromkeys(NAMES, 0.0)


def test_means():
    samples = [Sample("一样的话", "一样的话"), Sample("", "x")]
    assert Scoreboard(NAMES).take(samples)["bleu-4"] == 50.0
    assert Scoreboard(NAMES).take([]) == dict.fromkeys(NAMES, 0.0)
    assert words_of("a b。 c") == ["a", "b。", "c"]
