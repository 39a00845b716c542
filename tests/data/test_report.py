"""What the user reads about the rows."""

from __future__ import annotations

import pytest

from tunesmith.core.errors import DataError
from tunesmith.core.types import Source, TokenizedRow
from tunesmith.data.report import (
    UNTRAINED,
    DatasetReport,
    Reject,
    SupervisionReport,
    duplicates,
    histogram,
    raise_rejects,
)
from tunesmith.data.rows import pack_arrays


def row(ids, number=1):
    return TokenizedRow(ids, ids, Source("f", number))


def test_histogram_counts_every_row_once():
    lines = histogram([1, 2, 10, 10, 95, 100])
    assert len(lines) == 10
    assert sum(int(line.split()[-1]) for line in lines) == 6
    assert lines[0] == f"  1 -  10 tokens | {'#' * 40} 4"
    assert lines[-1].startswith(" 91 - 100 tokens | ")
    assert histogram([]) == []
    assert len(histogram([3])) == 3


def test_duplicates_are_counted_and_the_first_pair_named():
    rows = pack_arrays([row([1, 2], 1), row([3], 2), row([1, 2], 3), row([1, 2], 4)])
    assert duplicates(rows) == (2, (Source("f", 1), Source("f", 3)))
    assert duplicates(pack_arrays([])) == (0, None)


def test_untrained_rows_do_not_crowd_out_other_faults():
    report = DatasetReport("x", read=100)
    for number in range(50):
        report.reject(Reject(Source("f", number), "", UNTRAINED))
    report.reject(Reject(Source("f", 99), "c", "other", "fix"))
    with pytest.raises(DataError) as caught:
        raise_rejects([report], allow_untrained_rows=True)
    assert "f, row 99, column c: other" in str(caught.value)
    assert "1 rows cannot be used" in str(caught.value)
    raise_rejects([DatasetReport("y", read=3, kept=3)])


def test_lines_show_totals_share_and_losses():
    first = DatasetReport("a")
    first.read = 2
    first.keep(pack_arrays([row([1, 2, 3]), TokenizedRow([1, 2], [-100, 2], Source("f", 2), 5, 4)]))
    report = SupervisionReport([first], 2, 1, 1, 5, 3, (3, Source("f", 1)))
    text = "\n".join(report.lines())
    assert "a: read 2, kept 2, rejected 0, truncated 1" in text
    assert "tokens: 5; trained tokens: 3 (60.0 %)" in text
    assert "longest row: 3 tokens (f, row 1)" in text
    assert "packed into 1 items" in text
    assert "evaluation rows: 1" in text
    assert "1 rows cut to cutoff_len, 5 tokens lost, 4 of them trained" in text
