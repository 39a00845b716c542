"""Pairs and labels that would teach the wrong thing."""

from __future__ import annotations

from tunesmith.core.types import Conversation, Feedback, Message, Preference, Source
from tunesmith.data.checks.judged import LabelHealth, PairHealth


def said(text):
    return Message("assistant", text)


def asked(text="Why?"):
    return Conversation((Message("user", text),))


def pair(row, chosen, rejected, prompt="Why?"):
    return Preference(asked(prompt), said(chosen), said(rejected), Source("f", row))


def judged(row, answer, is_good, prompt="Why?"):
    return Feedback(Conversation((Message("user", prompt), said(answer))), is_good, Source("f", row))


def pairs(*rows):
    health = PairHealth()
    for example in rows:
        health.add(example, len(example.chosen.content), len(example.rejected.content))
    return health


def test_pairs_that_teach_nothing_or_cancel_each_other():
    health = pairs(
        pair(1, "a", "b"), pair(2, "c", " c "), pair(3, "b", "a"), pair(4, "", "x"), pair(5, "b", "a", "Other")
    )
    assert (health.identical.first, health.empty.first, health.contradictions.first) == (
        [("f", 2)],
        [("f", 4)],
        [("f", 3)],
    )
    text = "\n".join(health.warnings())
    assert "the same in 1 (row 2) pairs" in text
    assert "empty in 1 (row 4) pairs" in text
    assert "1 (row 3) pairs stand the other way round" in text


def test_length_bias_is_called_out_on_either_side():
    """Ten pairs of 30 against 10 tokens: the mean is three times as long, and the longer side always the same."""
    for texts, name in ((("a" * 30, "b" * 10), "chosen"), (("a" * 10, "b" * 30), "rejected")):
        health = pairs(*[pair(row, *texts, prompt=str(row)) for row in range(10)])
        (line,) = health.warnings()
        assert line.startswith(f"{name} answers are the longer ones in 100% of the pairs")
        assert sorted(health.means) == [10, 30]
    assert list(pairs(*[pair(row, "a" * 30, "b", str(row)) for row in range(9)]).warnings()) == []
    even = [pair(row, "a" * (10 + row % 2), "b" * (11 - row % 2), str(row)) for row in range(20)]
    assert list(pairs(*even).warnings()) == []


def test_labels_out_of_balance_and_against_each_other():
    def lines(*rows):
        health = LabelHealth()
        for example in rows:
            health.add(example)
        return list(health.warnings())

    many = [judged(row, f"answer {row}", True) for row in range(9)]
    assert "every row is marked good" in lines(*many)[0]
    assert "9 rows are marked good, 2 bad" in lines(*many, judged(9, "no", False), judged(10, "never", False))[0]
    assert lines(*many[:4], judged(9, "no", False)) == []
    assert "good and bad in 1 (row 2) rows" in lines(judged(1, "a", True), judged(2, "a", False))[0]
    assert "empty in 1 (row 2) rows" in lines(judged(1, "a", True), judged(2, "", False))[0]
