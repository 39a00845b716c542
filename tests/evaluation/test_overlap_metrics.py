"""Word metrics in many languages against nltk, sacrebleu, rouge_chinese (no part of the product) and by hand."""

from __future__ import annotations

import random
from collections.abc import Sequence

import pytest

from tunesmith.config.metrics import CLASSIC
from tunesmith.evaluation.metrics.base import Mean, Sample
from tunesmith.evaluation.metrics.corpus import bleu_tokens
from tunesmith.evaluation.metrics.rouge import words_of
from tunesmith.evaluation.metrics.scoreboard import Scoreboard
from tunesmith.evaluation.metrics.words import has_han, tokens, words

ENGLISH = [
    "the",
    "cat",
    "sat.",
    "on",
    "a",
    "mat,",
    "3.14",
    "U.S.",
    "well-known",
    "don't",
    "(x)",
    "&quot;q&quot;",
    "5-6",
]
CHINESE = ["今天", "天气", "很", "好", "。", "我们", "去", "公园", "，", "散步", "“你好”", "ABC", "3.5", "！", "…"]


def texts(vocabulary: Sequence[str], count: int, seed: int, joint: str) -> list[tuple[str, str]]:
    rng = random.Random(seed)
    pairs = []
    for _ in range(count):
        label = [rng.choice(vocabulary) for _ in range(rng.randint(1, 18))]
        predict = [word if rng.random() < 0.7 else rng.choice(vocabulary) for word in label]
        pairs.append((joint.join(predict[: rng.randint(0, len(predict))] or predict), joint.join(label)))
    return pairs


def score(names: Sequence[str], pairs: Sequence[tuple[str, str]], **options: object) -> dict[str, float]:
    return Scoreboard(names, options).take(Sample(predict, label) for predict, label in pairs)


@pytest.mark.parametrize(("vocabulary", "joint", "tokenize"), [(ENGLISH, " ", "13a"), (CHINESE, "", "zh")])
def test_corpus_bleu_and_chrf_equal_sacrebleu(vocabulary: list[str], joint: str, tokenize: str) -> None:
    import sacrebleu

    for seed in range(40):
        pairs = texts(vocabulary, 1 + seed % 12, seed, joint)
        ours = score(["corpus_bleu", "chrf"], pairs, language="zh" if tokenize == "zh" else "auto")
        predictions, labels = [predict for predict, _ in pairs], [[label for _, label in pairs]]
        assert ours["corpus_bleu"] == pytest.approx(
            sacrebleu.corpus_bleu(predictions, labels, tokenize=tokenize, force=True).score, abs=1e-9
        )
        assert ours["chrf"] == pytest.approx(sacrebleu.corpus_chrf(predictions, labels).score, abs=1e-9)


def test_several_references_equal_sacrebleu() -> None:
    import sacrebleu

    first, second = texts(ENGLISH, 9, 1, " "), texts(ENGLISH, 9, 2, " ")
    board = Scoreboard(["corpus_bleu", "chrf"])
    for (predict, label), (_, other) in zip(first, second, strict=True):
        board.add(Sample(predict, label, others=(other,)))
    references = [[label for _, label in first], [label for _, label in second]]
    predictions = [predict for predict, _ in first]
    assert board.result()["corpus_bleu"] == pytest.approx(sacrebleu.corpus_bleu(predictions, references).score)
    assert board.result()["chrf"] == pytest.approx(sacrebleu.corpus_chrf(predictions, references).score)


def test_bleu_over_words_equals_nltk() -> None:
    from nltk.translate.bleu_score import SmoothingFunction, sentence_bleu

    for vocabulary, joint in ((ENGLISH, " "), (CHINESE, "")):
        pairs = texts(vocabulary, 60, 5, joint)
        theirs = [
            100 * sentence_bleu([tokens(y)], tokens(x), smoothing_function=SmoothingFunction().method3)
            for x, y in pairs
        ]
        assert score(["bleu"], pairs)["bleu"] == pytest.approx(sum(theirs) / len(theirs), abs=1e-4)


def test_rouge_equals_rouge_chinese_where_no_word_comes_twice() -> None:
    """Sets (rouge_chinese) and clipped counts (ours) are then the same."""
    from rouge_chinese import Rouge

    rng = random.Random(3)
    pool = ["alpha", "beta", "gamma", "delta", "epsilon", "zeta", "eta", "theta", "iota", "kappa"]
    for _ in range(60):
        label = rng.sample(pool, rng.randint(1, 8))
        predict = rng.sample(pool, rng.randint(1, 8))
        theirs = Rouge().get_scores(" ".join(predict), " ".join(label))[0]
        ours = score(["rouge"], [(" ".join(predict), " ".join(label))])
        for name, other in (("rouge1", "rouge-1"), ("rouge2", "rouge-2"), ("rougeL", "rouge-l")):
            assert ours[name] == pytest.approx(100 * theirs[other]["f"], abs=1e-4)


def test_rouge_counts_words_as_often_as_they_come() -> None:
    """'a a b' against 'a b b': a and b once of three: 2/3. Bigrams aa, ab and ab, bb: 1 of 2. Longest 'a b': 2/3."""
    found = score(["rouge"], [("A a b!", "a, b b")])
    assert found == pytest.approx({"rouge1": 200 / 3, "rouge2": 50, "rougeL": 200 / 3})


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Привет, мир! Как дела?", ["Привет", ",", "мир", "!", "Как", "дела", "?"]),
        ("Das Café kostet 3,50 Euro.", ["Das", "Café", "kostet", "3,50", "Euro", "."]),
        ("it's 1,000.5 — don’t", ["it's", "1,000.5", "—", "don’t"]),
        ("이것은 문장입니다", ["이것은", "문장입니다"]),
        ("हिन्दी में लिखा", ["हिन्दी", "में", "लिखा"]),
        ("これはペン", list("これはペン")),
        ("สวัสดี", ["ส", "วั", "ส", "ดี"]),
        ("今天天气很好abc", ["今天天气", "很", "好", "abc"]),
        ("snake_case x-y", ["snake_case", "x", "-", "y"]),
        ("", []),
        ("\u0301 'a", ["\u0301", "'", "a"]),
    ],
)
def test_words_in_many_scripts(text: str, expected: list[str]) -> None:
    assert tokens(text) == expected


def test_russian_is_not_taken_apart() -> None:
    """The classic scores cut Russian into letters: two sentences without a common word look alike. `rouge` does not."""
    pair = [("мама мыла раму", "дом стоит давно")]
    assert score(["rouge-1"], pair)["rouge-1"] > 20
    assert score(["rouge"], pair)["rouge1"] == 0
    assert words("«Мама», мыла!") == ["мама", "мыла"]


def test_languages_can_be_set() -> None:
    assert tokens("ab cd", "characters") == ["a", "b", "c", "d"]
    assert tokens("今天 天气", "words") == ["今天", "天气"]
    assert tokens("これはペン", "zh") == list("これはペン")
    assert bleu_tokens("a b.", "words") == ["a", "b."]
    assert has_han("我用 Python")
    assert not has_han("the word 你 in English")


def test_token_f1_by_hand() -> None:
    """The SQuAD example: 'the cat sat' against 'a cat sat down': 2 common of 3 and 4 words: 2 * 2 / 7."""
    assert score(["token_f1"], [("The cat, sat", "a cat sat down")])["token_f1"] == pytest.approx(4 / 7)
    assert score(["token_f1"], [("", "")])["token_f1"] == 1.0
    assert score(["token_f1"], [("", "x")])["token_f1"] == 0.0
    assert score(["token_f1"], [("我喜欢猫", "我喜欢狗")])["token_f1"] == pytest.approx(2 / 3)


def test_equality_and_containment() -> None:
    pairs = [("New  York\n", "New York"), ("It is new york.", "New York"), ("Paris", "New York"), ("x", "")]
    assert score(["exact_match", "contains"], pairs) == {"exact_match": 0.25, "contains": 0.25}
    assert score(["contains"], pairs[:3])["contains"] == pytest.approx(2 / 3 - 1 / 3)


def test_defaults_are_the_classic_four() -> None:
    board = Scoreboard(CLASSIC)
    assert board.add(Sample("一样的话", "一样的话")) == {
        "bleu-4": 100.0,
        "rouge-1": pytest.approx(100, abs=1e-4),
        "rouge-2": pytest.approx(100, abs=1e-4),
        "rouge-l": pytest.approx(100, abs=1e-4),
    }
    assert list(Scoreboard(["rouge-2"]).take([Sample("a b", "a b")])) == ["rouge-2"]
    assert words_of("a b") == ["a", "b"]


def test_nothing_scores_zero() -> None:
    names = ["bleu", "corpus_bleu", "rouge", "chrf", "token_f1", "exact_match", "contains", *CLASSIC]
    assert set(Scoreboard(names).result().values()) == {0.0}
    empty = score([name for name in names if name not in ("token_f1", "exact_match")], [("", "")])
    assert set(empty.values()) == {0.0}


def test_a_mean_of_many_small_numbers_is_exact() -> None:
    mean = Mean()
    for value in [1e16, 1.0, -1e16] * 100:
        mean.add(value)
    assert mean.value == pytest.approx(1 / 3)
