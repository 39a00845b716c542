"""Row lengths: bars that add up and read well, and a picture."""

from __future__ import annotations

from itertools import pairwise

import pytest

from tunesmith.data.checks.lengths import Bar, bar_lines, bars, percentiles, plot_lengths


def test_bars_are_round_and_count_every_row_once():
    found = bars([1, 2, 10, 10, 95, 100])
    assert found[0] == Bar(1, 10, 4)
    assert found[-1] == Bar(91, 100, 2)
    assert sum(bar.rows for bar in found) == 6
    assert bars([3]) == [Bar(3, 3, 1)]
    assert bars([]) == []


def test_a_few_very_long_rows_do_not_flatten_the_others():
    found = bars([*range(1, 200), 90_000])
    assert len(found) <= 13
    assert found[-1].last == 90_000
    assert max(bar.rows for bar in found) < 30
    assert sum(bar.rows for bar in found) == 200


@pytest.mark.parametrize("lengths", [[1], [7, 7, 7], [1, 1000], list(range(5, 3000, 7))])
def test_bars_touch_each_other(lengths):
    found = bars(lengths)
    assert all(before.last + 1 == after.first for before, after in pairwise(found))
    assert found[0].first <= min(lengths)
    assert found[-1].last >= max(lengths)
    assert sum(bar.rows for bar in found) == len(lengths)


def test_bars_as_text():
    assert bar_lines([1, 2, 10, 10, 95, 100])[0] == f"  1 -  10 tokens | {'#' * 40} 4"
    assert bar_lines([]) == []


def test_percentiles():
    assert percentiles(range(1, 101)) == {"p50": 50, "p90": 90, "p99": 99}
    assert percentiles([]) == {}


def test_the_picture_is_a_png(tmp_path):
    path = tmp_path / "new" / "lengths.png"
    assert plot_lengths([("a", [1, 2, 3]), ("empty", [])], 3, path) == path
    assert path.read_bytes().startswith(b"\x89PNG")
    assert plot_lengths([("empty", [])], 3, tmp_path / "none.png") is None
