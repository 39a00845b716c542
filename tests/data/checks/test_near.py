"""Rows that are nearly alike: found with their similarity, in any script, in linear work."""

from __future__ import annotations

import random

import numpy as np
import pytest

from tunesmith.data.checks import near
from tunesmith.data.checks.near import SKETCH, Sketches, bands, shingles, similarity


def sketches(*texts, group=0):
    found = Sketches()
    for text in texts:
        found.add(text, group)
    return found


def words(count, seed):
    source = random.Random(seed)
    return " ".join("".join(source.choices("abcdefghijklmnopqrstuvwxyz", k=6)) for _ in range(count))


def jaccard(first, second, size=5):
    one, two = ({text[i : i + size] for i in range(len(text) - size + 1)} for text in (first, second))
    return len(one & two) / len(one | two)


def test_shingles_of_a_short_text_are_its_five_character_runs():
    assert len(shingles("abcdef")) == 2
    assert len(shingles("abc")) == 1
    assert len(shingles("")) == 0
    assert np.array_equal(shingles("Ab  cde\nf"), shingles("ab cde f"))
    assert len(shingles("今天天气很好")) == 4


def test_similarity_of_short_texts_is_exact_and_of_long_ones_close():
    first, second = "the quick brown fox jumps", "the quick brown dog jumps"
    assert similarity(shingles(first), shingles(second)) == pytest.approx(jaccard(first, second))
    long = words(400, 1)
    other = long[:2500] + words(50, 2)
    estimate = similarity(shingles(long)[:SKETCH], shingles(other)[:SKETCH])
    assert estimate == pytest.approx(jaccard(long, other), abs=0.1)


def test_near_duplicates_are_found_and_others_are_not():
    texts = [words(60, seed) for seed in range(50)]
    changed = texts[7][:200] + "Q" + texts[7][201:]
    (match,) = sketches(*texts, changed).repeats()
    assert match[:2] == (50, 7)
    assert 0.8 <= match[2] < 1
    chinese = "珠江三角洲位于广东省中南部，是中国经济最发达、人口最密集的地区之一，由珠江水系冲积而成。"
    (match,) = sketches(
        chinese, "长江是亚洲最长的河流，发源于青藏高原，流经十一个省市。", chinese.replace("广东", "粤")
    ).repeats()
    assert match[:2] == (2, 0)


def test_a_row_is_reported_once_however_many_are_like_it(monkeypatch):
    compared = []
    original = near.similarity
    monkeypatch.setattr(near, "similarity", lambda *pair: compared.append(1) or original(*pair))
    base = words(40, 3)
    found = list(sketches(*[base] * 300).repeats())
    assert [row for row, _, _ in found] == list(range(1, 300))
    assert {like for _, like, _ in found} == {0}
    assert len(compared) == 299


def test_work_grows_with_the_rows_where_all_share_half_of_their_text(monkeypatch):
    compared = []
    original = near.similarity
    monkeypatch.setattr(near, "similarity", lambda *pair: compared.append(1) or original(*pair))
    shared = words(40, 4)
    assert list(sketches(*[shared + words(40, seed) for seed in range(100, 400)]).repeats()) == []
    assert len(compared) <= 300 * near.BANDS * (near.CANDIDATES + 1)


def test_rows_of_another_set_are_found():
    train = [words(50, seed) for seed in range(20)]
    held_out = [words(50, 99), train[3][:-1] + "!", train[11].upper()]
    found = list(sketches(*held_out).found_in(sketches(*train)))
    assert [(row, like) for row, like, _ in found] == [(1, 3), (2, 11)]
    assert found[1][2] == 1


def test_groups_and_empty_texts_never_meet():
    both = Sketches()
    both.add("the same text in both", 0)
    both.add("the same text in both", 1)
    both.add("")
    both.add("")
    assert list(both.repeats()) == []
    assert list(Sketches().repeats()) == []
    assert list(both.found_in(Sketches())) == []
    assert bands(shingles("abcdefgh")).shape == (near.BANDS,)


@pytest.mark.parametrize("share", [0.86, 0.92, 0.97])
def test_most_pairs_above_the_threshold_are_found(share):
    pairs = Sketches()
    for seed in range(60):
        text = words(120, seed)
        cut = int(len(text) * share)
        pairs.add(text)
        pairs.add(text[:cut])
    assert len(list(pairs.repeats())) >= 60 * (0.9 if share < 0.9 else 0.97)
