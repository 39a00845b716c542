"""Files of every type: row numbers, broken places, encodings."""

from __future__ import annotations

import json

import pytest

from tunesmith.core.errors import DataError
from tunesmith.data import json_stream
from tunesmith.data.sources import read_rows, select_split

ROWS = [{"instruction": "你好", "output": "b"}, {"instruction": "c", "output": "d\ne"}]


def read(path):
    return [(row.source.row, row.value, row.fault) for row in read_rows(path)]


def write(tmp_path, name, content):
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def as_lines(rows, end="\n"):
    return end.join(json.dumps(row, ensure_ascii=False) for row in rows) + end


@pytest.mark.parametrize("name", ["x.json", "x.jsonl"])
@pytest.mark.parametrize("bom", [b"", b"\xef\xbb\xbf"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_json_lines_under_both_names_with_bom_and_crlf(tmp_path, name, bom, end):
    path = write(tmp_path, name, bom + as_lines(ROWS, end).encode())
    assert read(path) == [(1, ROWS[0], ""), (2, ROWS[1], "")]


@pytest.mark.parametrize("indent", [None, 2])
@pytest.mark.parametrize("bom", [b"", b"\xef\xbb\xbf"])
def test_json_list(tmp_path, indent, bom):
    path = write(tmp_path, "x.json", bom + json.dumps(ROWS, indent=indent).encode())
    assert [value for _, value, _ in read(path)] == ROWS


def test_jsonl_row_number_is_the_line_and_blank_lines_are_no_rows(tmp_path):
    path = write(tmp_path, "x.jsonl", '\n{"a": 1}\n\n{"a": \n[1]\n"text"\nnull\n')
    found = read(path)
    assert [number for number, _, _ in found] == [2, 4, 5, 6, 7]
    assert "broken JSON" in found[1][2]
    assert "not a list" in found[2][2]


def test_jsonl_line_that_is_not_utf8(tmp_path):
    path = write(tmp_path, "x.jsonl", b'{"a": "ok"}\n{"a": "\xff"}\n')
    assert "not UTF-8" in read(path)[1][2]


@pytest.mark.parametrize("chunk", [1, 2, 3, 7, 1 << 20])
@pytest.mark.parametrize(
    "rows", [[], [1, 23, 456], [{"a": [1, "]"]}, [], 'x\\"y', -1.5e3, True, None], [{"t": "é" * 50}]]
)
def test_json_list_is_read_alike_at_any_chunk_size(tmp_path, monkeypatch, chunk, rows):
    monkeypatch.setattr(json_stream, "_CHUNK", chunk)
    path = write(tmp_path, "x.json", json.dumps(rows, ensure_ascii=False, indent=1))
    with path.open("rb") as handle:
        assert list(json_stream.JsonArrayReader(handle, path)) == rows


@pytest.mark.parametrize("chunk", [5, 1 << 20])
@pytest.mark.parametrize(
    ("text", "place", "said"),
    [
        ('[\n{"a": 1},\n{"a" 2}\n]', ":3:", "column 6"),
        ('[\n{"a": 1}\n{"a": 2}\n]', ":3:", "expected a comma"),
        ('[\n{"a": 1},\n]', ":3:", "a comma stands before"),
        ('[\n{"a": 1}', ":2:", "] is missing"),
        ('[{"a": "no end', ":1:", "Unterminated string"),
        ('[{"a": 1}] x', ":1:", "after the closing"),
    ],
)
def test_broken_json_list_names_line_and_column(tmp_path, monkeypatch, chunk, text, place, said):
    monkeypatch.setattr(json_stream, "_CHUNK", chunk)
    path = write(tmp_path, "x.json", text)
    with pytest.raises(DataError) as caught:
        read(path)
    assert f"x.json{place}" in str(caught.value)
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("x.json", "", "no rows"),
        ("x.json", "[]", "no rows"),
        ("x.jsonl", "\n\n", "no rows"),
        ("x.csv", "", "no rows"),
        ("x.csv", "a,b\n", "no rows"),
        ("x.txt", "", "no rows"),
        ("x.json", '{\n"data": [{"a": 1}]\n}', "its key 'data' holds a list"),
        ("x.json", '{\n"data": [{"a": 1}]\n', "broken JSON"),
        ("x.json", "hello", "neither a list"),
        ("x.json", '[{"a": 1}, {"b": "c"', "the file ends within a row"),
        ("x.json", '[{"a": 1}, {"b":', "close the list with ]"),
        ("x.json", '[{"a": 1},\n {"b": "ä"}]'.encode("latin-1"), "not UTF-8 text (invalid continuation byte)"),
        ("x.json", '[{"a": "好"}]'.encode("gbk"), "save the file as UTF-8"),
        ("x.jsonl", "\ufeff{}".encode("utf-16"), "UTF-16"),
        ("x.csv", "a,a\n1,2\n", "names a column twice"),
        ("x.csv", b"a,b\n\xff,2\n", "not UTF-8"),
        ("x.parquet", "nonsense", "not a readable parquet file"),
        ("x.arrow", "nonsense", "not a readable arrow file"),
        ("x.xlsx", "nonsense", "file type .xlsx is not known"),
    ],
)
def test_files_that_cannot_be_used(tmp_path, name, content, said):
    with pytest.raises(DataError) as caught:
        read(write(tmp_path, name, content))
    assert said in str(caught.value)
    assert name in str(caught.value)


def test_csv_row_number_is_the_line_where_the_row_begins(tmp_path):
    path = write(tmp_path, "x.csv", '\ufeffa,b\r\n"x\r\ny",1\r\n2\r\n3,4\r\n')
    found = read(path)
    assert found[0] == (2, {"a": "x\r\ny", "b": "1"}, "")
    assert found[1][0] == 4
    assert "1 cells" in found[1][2]
    assert found[2] == (5, {"a": "3", "b": "4"}, "")


def test_txt_is_a_row_a_line(tmp_path):
    path = write(tmp_path, "x.txt", "one\n\ntwo\x00\nthree")
    found = read(path)
    assert found[0] == (1, {"text": "one"}, "")
    assert "NUL" in found[1][2]
    assert found[2] == (4, {"text": "three"}, "")


def test_parquet_and_both_kinds_of_arrow(tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pa.Table.from_pylist(ROWS)
    pq.write_table(table, tmp_path / "x.parquet")
    with pa.ipc.new_file(str(tmp_path / "file.arrow"), table.schema) as writer:
        writer.write_table(table)
    with pa.ipc.new_stream(str(tmp_path / "stream.arrow"), table.schema) as writer:
        writer.write_table(table)
    for name in ("x.parquet", "file.arrow", "stream.arrow"):
        assert read(tmp_path / name) == [(1, ROWS[0], ""), (2, ROWS[1], "")]


def test_folder_in_sorted_order_without_hidden_files(tmp_path):
    for name, text in (("b.jsonl", "b"), ("a.jsonl", "a"), (".hidden", "x")):
        write(tmp_path, name, json.dumps({"t": text}))
    assert [value["t"] for _, value, _ in read(tmp_path)] == ["a", "b"]
    write(tmp_path, "c.csv", "t\nc\n")
    with pytest.raises(DataError, match="mixes file types"):
        read(tmp_path)


@pytest.mark.parametrize(
    ("split", "expected"),
    [
        ("train", [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]),
        ("train[:2]", [0, 1]),
        ("train[8:]", [8, 9]),
        ("train[-2:]", [8, 9]),
        ("train[10%:30%]", [1, 2]),
        ("train[:1]+train[-1:]", [0, 9]),
        ("train[:500]", list(range(10))),
    ],
)
def test_split_expressions(split, expected):
    assert [index for part in select_split(split, 10) for index in part] == expected


@pytest.mark.parametrize("split", ["test", "train[", "train[a:b]", ""])
def test_split_that_is_not_understood(split):
    with pytest.raises(ValueError, match="split"):
        select_split(split, 10)
