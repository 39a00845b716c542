"""What the user reads about the rows."""

from __future__ import annotations

import pytest

from tunesmith.core.errors import DataError
from tunesmith.core.types import Source, TokenizedRow
from tunesmith.data.flat import pack_arrays
from tunesmith.data.report import (
    UNTRAINED,
    DatasetReport,
    Reject,
    SupervisionReport,
    dataset_warnings,
    raise_rejects,
)


def row(ids, number=1):
    return TokenizedRow(ids, ids, Source("f", number))


def test_answers_without_an_end_are_counted_by_cause_and_named():
    end, report = 9, DatasetReport("x", path="f")
    rows = [
        TokenizedRow([1, 2, 9], [-100, 2, 9], Source("f", 1)),
        TokenizedRow([1, 2, 3], [-100, 2, 3], Source("f", 2)),
        TokenizedRow([1, 2], [-100, 2], Source("f", 3), 4, 4),
        TokenizedRow([1, 2, 9], [-100, 2, 9], Source("f", 4), 4, 4),
        TokenizedRow([1, 2], [-100, 2], Source("f", 7), 2, 2),
    ]
    report.keep(pack_arrays(rows), frozenset({end}))
    assert (report.open_answers, report.cut_answers, report.truncated) == (3, 2, 3)
    cut, whole = dataset_warnings(report)
    assert "in 2 rows an answer lost its end token to cutoff_len (rows 3, 7)" in cut
    assert "in 1 rows an answer has no end token (row 2)" in whole


def test_reasons_are_grouped_and_name_their_rows():
    report = DatasetReport("x")
    for number in range(1, 9):
        report.reject(Reject(Source("f", number), f"messages[{number}].content", "null where text is expected"))
    report.reject(Reject(Source("f", 9), "", "broken JSON: Expecting value at column 7, near 'x'"))
    assert report.reasons == {"messages[].content: null where text is expected": 8, "broken JSON": 1}
    (line,) = dataset_warnings(report)
    assert "8x messages[].content: null where text is expected (rows 1, 2, 3, 4, 5, ...)" in line
    assert "1x broken JSON (row 9)" in line


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
