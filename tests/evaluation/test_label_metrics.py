"""Labels and spans read out of text; scores against scikit-learn (no part of the product) and by hand."""

from __future__ import annotations

import random
from typing import Any

import pytest

from tunesmith.evaluation.metrics.base import Options, Sample
from tunesmith.evaluation.metrics.labels import LabelReader
from tunesmith.evaluation.metrics.scoreboard import Scoreboard
from tunesmith.evaluation.metrics.spans import SpanReader

LABELS = ["positive", "negative", "neutral", "mixed"]
NAMES = ("accuracy", "precision", "recall", "f1")


def pairs(seed: int, unreadable: float = 0.15) -> list[tuple[str, str]]:
    rng = random.Random(seed)
    return [
        (
            "I cannot say" if rng.random() < unreadable else f"It is {rng.choice(LABELS).upper()}.",
            rng.choice(LABELS[:3]),
        )
        for _ in range(rng.randint(1, 60))
    ]


@pytest.mark.parametrize("average", ["macro", "micro", "weighted", "binary"])
@pytest.mark.parametrize("unreadable", [0.0, 0.2])
def test_equal_to_scikit_learn(average: str, unreadable: float) -> None:
    from sklearn.metrics import accuracy_score, precision_recall_fscore_support

    for seed in range(25):
        rows = pairs(seed, unreadable)
        options: dict[str, Any] = {"labels": LABELS, "average": average}
        if average == "binary":
            options["positive_label"] = "negative"
        ours = Scoreboard(NAMES, options).take(Sample(predict, label) for predict, label in rows)
        said = [next((label for label in LABELS if label in predict.lower()), "none") for predict, _ in rows]
        right = [label for _, label in rows]
        wanted: dict[str, Any] = {"labels": LABELS, "average": average, "zero_division": 0}
        if average == "binary":
            wanted = {"labels": ["negative"], "average": "micro", "zero_division": 0}
        theirs = precision_recall_fscore_support(right, said, **wanted)[:3]
        assert list(ours.values()) == pytest.approx([accuracy_score(right, said), *theirs]), seed


def test_labels_that_nobody_named_are_those_of_the_references() -> None:
    """Free answers are no labels of their own: macro F1 over a and b, as scikit-learn with labels=[a, b]."""
    from sklearn.metrics import f1_score

    said, right = ["a", "b", "c", "a"], ["a", "a", "b", "b"]
    ours = Scoreboard(["f1"]).take(Sample(p, r) for p, r in zip(said, right, strict=True))
    assert ours["f1"] == pytest.approx(f1_score(right, said, labels=["a", "b"], average="macro"))


@pytest.mark.parametrize(
    ("text", "options", "expected"),
    [
        ("Positive.", {"labels": ["positive", "negative"]}, "positive"),
        ("It is negative, not positive", {"labels": ["positive", "negative"]}, "positive"),
        ("It is negative, not positive", {"labels": ["positive", "negative"], "label_take": "first"}, "negative"),
        ("unpositively said", {"labels": ["positive"]}, None),
        ("very  negative", {"labels": ["negative", "very negative"]}, "very negative"),
        ("这句话是负面的", {"labels": ["正面", "负面"]}, "负面"),
        ("Positive", {"labels": ["positive"], "ignore_case": False}, None),
        ("thinking...\nAnswer: B\n", {"label_pattern": r"Answer:\s*(\w)"}, "b"),
        ("A: x. B: y", {"label_pattern": r"(?P<mark>\w): (?P<label>\w)", "label_take": "first"}, "x"),
        ("none here", {"label_pattern": "Answer: (.)"}, None),
        ("Answer: maybe", {"label_pattern": r"Answer: (\w+)", "labels": ["yes", "no"]}, None),
        ("Answer: YES", {"label_pattern": r"Answer: (\w+)", "labels": ["yes", "no"]}, "yes"),
        ("  “spam”。 ", {}, "spam"),
        ("   ", {}, None),
        ("c++ is it", {"labels": ["c++", "java"]}, "c++"),
    ],
)
def test_reading_a_label(text: str, options: dict[str, Any], expected: str | None) -> None:
    assert LabelReader(Options.of(options)).read(text) == expected


def test_the_reference_may_be_the_bare_label() -> None:
    board = Scoreboard(["accuracy"], {"label_pattern": r"Answer: (\w)"})
    assert board.add(Sample("so Answer: B", "B")) == {"predicted_label": "b", "label": "b", "correct": True}
    assert board.add(Sample("so Answer: B", "Answer: C"))["correct"] is False
    assert board.add(Sample("nothing", "B")) == {"predicted_label": None, "label": "b", "correct": False}
    assert board.result() == {"accuracy": pytest.approx(1 / 3)}


ADA, TURING = ("per", "ada lovelace"), ("per", "turing")
LONDON = ("loc", "london")


@pytest.mark.parametrize(
    ("text", "options", "expected"),
    [
        ('Here: [{"text": "Ada Lovelace", "type": "PER"}, {"text": "London", "type": "LOC"}]', {}, [ADA, LONDON]),
        ('{"PER": ["Ada  Lovelace", "Turing"], "LOC": "London", "ORG": []}', {}, [ADA, TURING, LONDON]),
        ('[["London", "LOC"]]', {}, [LONDON]),
        ('["London", 3]', {}, [("", "london")]),
        ('{"text": "London", "type": "LOC"}', {}, [LONDON]),
        ('[{"name": "London", "kind": "LOC"}]', {"span_keys": ["name", "kind"]}, [LONDON]),
        ("no JSON [here", {}, []),
        ("PER: Ada Lovelace, Turing\nLOC: London\nORG: none", {"span_format": "lines"}, [ADA, TURING, LONDON]),
        ("人名：小明、小红\n地名：无", {"span_format": "lines"}, [("人名", "小明"), ("人名", "小红")]),
        ("(London|LOC) and (Turing|PER)", {"span_pattern": r"\((?P<text>[^|]+)\|(?P<type>\w+)\)"}, [LONDON, TURING]),
        ("<London> <Turing>", {"span_pattern": r"<(?P<text>\w+)>"}, [("", "london"), ("", "turing")]),
    ],
)
def test_reading_spans(text: str, options: dict[str, Any], expected: list[tuple[str, str]]) -> None:
    assert sorted(SpanReader(Options.of(options)).read(text).elements()) == sorted(expected)


def test_span_scores_by_hand() -> None:
    """Said 3 and 0 and 1, right 2 and 1 and 0, hits 1: precision 1/4, recall 1/3, F1 2/7."""
    rows = [
        ('{"PER": ["Ada", "Bob", "Bob"]}', '{"PER": ["Ada", "Eve"]}'),
        ("[]", '["x"]'),
        ('["x"]', "[]"),
        ("[]", "[]"),
    ]
    board = Scoreboard(["span_precision", "span_recall", "span_f1"])
    own = [board.add(Sample(predict, label)) for predict, label in rows]
    assert board.result() == pytest.approx({"span_precision": 1 / 4, "span_recall": 1 / 3, "span_f1": 2 / 7})
    assert own[0]["span_f1"] == pytest.approx(0.4)
    assert own[0]["spans"] == {"hits": 1, "said": 3, "right": 2}
    assert own[3]["span_f1"] == 1.0
    assert Scoreboard(["span_f1"]).result() == {"span_f1": 0.0}
