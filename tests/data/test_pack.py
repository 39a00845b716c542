"""Best-fit packing, the arrays behind TrainRows, and the validation split."""

from __future__ import annotations

import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunesmith.core.errors import DataError
from tunesmith.core.types import IGNORE_INDEX, Source, TokenizedRow
from tunesmith.data.flat import pack_arrays
from tunesmith.data.mix import split_validation
from tunesmith.data.pack import best_fit
from tunesmith.data.rows import TrainRows, concat_rows


def test_checked_example_of_the_reference():
    lengths = [3, 9, 5, 5, 2, 8, 1, 10]
    packs = best_fit(lengths, 10)
    assert [[lengths[row] for row in pack] for pack in packs] == [[10], [9, 1], [8, 2], [5, 5], [3]]


@given(st.lists(st.integers(1, 20), max_size=60))
def test_every_row_is_in_one_pack_and_no_pack_overflows(lengths):
    packs = best_fit(lengths, 20)
    assert sorted(row for pack in packs for row in pack) == list(range(len(lengths)))
    assert all(0 < sum(lengths[row] for row in pack) <= 20 for pack in packs)


def test_row_longer_than_a_pack_is_refused():
    with pytest.raises(ValueError, match="row 1 has 11 tokens"):
        best_fit([3, 11], 10)


ROWS = st.lists(
    st.builds(
        lambda pairs, file, number, lost: TokenizedRow(
            [token for token, _ in pairs],
            [{0: IGNORE_INDEX, 1: token, 2: 99}[kind] for token, kind in pairs],
            Source(file, number),
            lost,
            lost // 2,
        ),
        st.lists(st.tuples(st.integers(0, 50), st.integers(0, 2)), min_size=1, max_size=6),
        st.sampled_from(["a", "b"]),
        st.integers(1, 9),
        st.integers(0, 4),
    ),
    max_size=6,
)


@given(ROWS, ROWS, st.data())
def test_arrays_hold_what_was_put_in(first, second, data):
    rows = first + second
    stored = concat_rows([pack_arrays(first), pack_arrays(second)])
    assert list(stored) == rows
    assert stored.lengths.tolist() == [len(row.input_ids) for row in rows]
    assert stored.n_trained.tolist() == [row.n_trained for row in rows]
    chosen = data.draw(st.lists(st.integers(0, len(rows) - 1), max_size=5)) if rows else []
    assert list(stored.take(chosen)) == [rows[index] for index in chosen]
    assert list(pickle.loads(pickle.dumps(stored))) == rows


def test_five_bytes_a_token_and_a_little_a_row():
    row = TokenizedRow(list(range(1000)), list(range(1000)), Source("a", 1))
    stored = pack_arrays([row] * 100)
    assert len(pickle.dumps(stored)) < 100_000 * 5 + 100 * 60 + 2000


def test_items_plain_and_packed():
    rows = pack_arrays([TokenizedRow([7] * n, [IGNORE_INDEX] + [7] * (n - 1), Source("a", n)) for n in (2, 3, 1)])
    plain = TrainRows(rows)
    assert (len(plain), plain.tokens.tolist()) == (3, [2, 3, 1])
    assert plain[1] == {"input_ids": [7] * 3, "labels": [IGNORE_INDEX, 7, 7], "lengths": [3], "rows": [1]}
    packed = TrainRows(rows, [[1, 2], [0]])
    assert (len(packed), packed.tokens.tolist()) == (2, [4, 2])
    assert packed[0] == {
        "input_ids": [7] * 4,
        "labels": [IGNORE_INDEX, 7, 7, IGNORE_INDEX],
        "lengths": [3, 1],
        "rows": [1, 2],
    }
    assert packed.source(2) == Source("a", 1)
    assert [len(item["rows"]) for item in packed] == [2, 1]
    with pytest.raises(IndexError):
        packed[2]


def test_answers_that_do_not_close_are_counted():
    end, ids = 9, [1, 2, 9]
    closed = TokenizedRow(ids, [IGNORE_INDEX, 2, end])
    blank_after = TokenizedRow([1, 2, 9, 3], [IGNORE_INDEX, 2, end, 3])
    open_row = TokenizedRow([1, 2, 3], [IGNORE_INDEX, 2, 3])
    first_open = TokenizedRow([1, 2, 1, 2, 9], [IGNORE_INDEX, 2, IGNORE_INDEX, 2, end])
    by_label = TokenizedRow([1, 2, 5, 2, 9], [IGNORE_INDEX, 2, end, IGNORE_INDEX, IGNORE_INDEX])
    stored = pack_arrays([closed, blank_after, open_row, first_open, by_label])
    assert len(stored.open_rows(frozenset({end}))) == 2
    assert len(stored.open_rows(frozenset())) == 0


SOURCES = [Source("x.json", row) for row in range(1, 101)]


@pytest.mark.parametrize(
    ("val_size", "held_out"), [(0, 0), (1, 1), (1.0, 1), (10, 10), (0.1, 10), (0.101, 11), (99, 99)]
)
def test_validation_split_sizes(val_size, held_out):
    kept, held = split_validation(SOURCES, val_size, seed=42)
    assert len(held) == held_out
    assert sorted(kept + held) == list(range(100))
    assert (kept, held) == split_validation(SOURCES, val_size, seed=42)


def test_split_follows_the_row_and_the_seed():
    _, held = split_validation(SOURCES, 10, seed=42)
    assert split_validation(SOURCES, 10, seed=43)[1] != held
    _, mirrored = split_validation(SOURCES[::-1], 10, seed=42)
    assert {SOURCES[::-1][index] for index in mirrored} == {SOURCES[index] for index in held}
    _, more = split_validation([*SOURCES, Source("x.json", 101)], 10, seed=42)
    assert len(set(held) & set(more)) >= 9
    _, twice = split_validation(SOURCES * 2, 20, seed=42)
    assert {index % 100 for index in twice} == set(held)


def test_split_that_leaves_nothing_is_an_error():
    with pytest.raises(DataError, match="none is left to train on"):
        split_validation(SOURCES, 100, seed=42)
