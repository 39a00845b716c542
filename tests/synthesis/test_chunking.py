"""Chunks: within the limit, at good borders, everything in exactly one of them; and as files."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.synthesis.conftest import BOOK

from tunesmith.core.errors import DataError
from tunesmith.synthesis.chunk_files import read_chunks, write_chunks
from tunesmith.synthesis.chunking import chunks_of
from tunesmith.synthesis.counting import Estimate, TokenizerCounter
from tunesmith.synthesis.sentences import BLANK, script_of, sentences
from tunesmith.synthesis.texts import SourceText


def source(text: str, file: str = "book.txt") -> SourceText:
    return SourceText(Path(file), text, Path(file).stem)


def bare(text: str) -> str:
    return "".join(sign for sign in text if sign not in BLANK)


texts = st.text(alphabet='ab c.。，！\n\r\t\u3000”"“1A你好\ufeff', max_size=300)


@settings(max_examples=150, deadline=None)
@given(text=texts, limit=st.integers(1, 40))
def test_without_overlap_every_letter_is_in_exactly_one_chunk_and_none_is_too_long(text: str, limit: int) -> None:
    counter = Estimate()
    chunks = chunks_of(source(text), counter, limit)
    assert bare("".join(chunk.text for chunk in chunks)) == bare(text)
    assert all(before.end <= chunk.start for before, chunk in pairwise(chunks))
    for chunk in chunks:
        assert chunk.tokens == counter.counts([chunk.text])[0]
        assert chunk.tokens <= limit or len(chunk.text) == 1


@settings(max_examples=100, deadline=None)
@given(text=texts, limit=st.integers(4, 40), overlap=st.integers(0, 20))
def test_with_overlap_nothing_is_lost_and_it_goes_on(text: str, limit: int, overlap: int) -> None:
    chunks = chunks_of(source(text), Estimate(), limit, min(overlap, limit // 2))
    covered = {place for chunk in chunks for place in range(chunk.start, chunk.end)}
    assert all(sign in BLANK or place in covered for place, sign in enumerate(text))
    assert [chunk.start for chunk in chunks] == sorted({chunk.start for chunk in chunks})


@pytest.mark.parametrize("name", ["palace_novel.txt", "harbour_novel.txt", "harbour_guide.txt", "palace_script.txt"])
def test_chunks_of_real_prose_end_where_sentences_end(name: str, tiny_tokenizer) -> None:
    text = (BOOK / name).read_text(encoding="utf-8")
    for counter, limit in ((Estimate(), 120), (TokenizerCounter(tiny_tokenizer, "tiny"), 500)):
        chunks = chunks_of(source(text), counter, limit)
        assert len(chunks) > 3
        assert all(chunk.tokens <= limit for chunk in chunks)
        for chunk in chunks[:-1]:
            assert chunk.text[-1] in "。！？!?….”」\"'）)" or text[chunk.end :].startswith("\n"), chunk.text[-40:]
        assert min(chunk.tokens for chunk in chunks) > limit / 5, "no scraps"


def test_a_chunk_ends_before_a_heading_and_never_behind_it() -> None:
    body = "天气很好，他们去了河边。" * 4
    text = "".join(f"第{n}章 河边\n\n{body}\n\n" for n in "一二三四")
    assert [chunk.text[:3] for chunk in chunks_of(source(text), Estimate(), 80)] == [
        "第一章",
        "第二章",
        "第三章",
        "第四章",
    ]


def test_overlap_repeats_whole_sentences() -> None:
    text = "".join(f"这是第{n}句话。" for n in "一二三四五六七八九")
    first, second, *_ = chunks_of(source(text), Estimate(), 21, 7)
    assert first.text.endswith("这是第三句话。")
    assert second.text.startswith("这是第三句话。")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("他说：“走罢。”她没有动。", ["他说：“走罢。”", "她没有动。"]),
        ("Mr. Pym met J. K. Oddly at 3.5 knots. He left!", ["Mr. Pym met J. K. Oddly at 3.5 knots. ", "He left!"]),
        ('"Go," she said. "Now." He went.', ['"Go," she said. ', '"Now." ', "He went."]),
        ("一行\n又一行\n", ["一行\n", "又一行\n"]),
    ],
)
def test_sentences(text: str, expected: list[str]) -> None:
    assert [text[start:end] for start, end, _ in sentences(text)] == expected


def test_wrapped_lines_end_no_sentence() -> None:
    text = (BOOK / "harbour_guide.txt").read_text(encoding="utf-8")
    found = [text[start:end].strip() for start, end, _ in sentences(text)]
    assert "It was founded in 1682 by herring fishers, who built the first stone\npier by hand." in found


@pytest.mark.parametrize(
    ("text", "script"),
    [("今天 is 好天气", "zh"), ("Hello 世界 world", "en"), ("こんにちは世界", "ja"), ("안녕하세요", "ko"),
     ("Привет", "ru"), ("123 !", "")],
)  # fmt: skip
def test_scripts(text: str, script: str) -> None:
    assert script_of(text) == script


def test_chunks_as_files_point_into_their_text_as_long_as_they_say_what_it_says() -> None:
    Path("book").mkdir()
    Path("book/long.txt").write_bytes("\ufeff第一句话。\r\n\r\n第二句话很长很长。\r\n第三句。\r\n".encode())
    book = SourceText(Path("book/long.txt"), Path("book/long.txt").read_bytes().decode(), "long")
    chunks = chunks_of(book, Estimate(), 9)
    write_chunks(Path("saveChunk"), chunks)
    again = read_chunks(Path("saveChunk"), Estimate())
    assert [(chunk.text, chunk.start, chunk.source.file) for chunk in again] == [
        (chunk.text, chunk.start, Path("book/long.txt")) for chunk in chunks
    ]
    changed = Path("saveChunk") / f"{chunks[1].name}.txt"
    changed.write_text("Something else.", encoding="utf-8")
    (Path("saveChunk") / "zz.txt").write_text("One more.", encoding="utf-8")
    by_name = {chunk.name: chunk for chunk in read_chunks(Path("saveChunk"), Estimate())}
    assert by_name[chunks[1].name].source.file == changed
    assert by_name["zz"].source.file == Path("saveChunk/zz.txt")
    with pytest.raises(DataError, match="changed since"):
        write_chunks(Path("saveChunk"), chunks)


def test_splitting_again_replaces_its_own_files_and_no_others() -> None:
    text = "一句话。" * 30
    write_chunks(Path("c"), chunks_of(source(text, "a.txt"), Estimate(), 10))
    write_chunks(Path("c"), chunks_of(source(text, "b.txt"), Estimate(), 40))
    Path("c/mine.md").write_text("note", encoding="utf-8")
    write_chunks(Path("c"), chunks_of(source(text, "a.txt"), Estimate(), 60))
    names = sorted(path.name for path in Path("c").iterdir())
    assert names == ["a_0001.txt", "a_0002.txt", "b_0001.txt", "b_0002.txt", "b_0003.txt", "chunks.jsonl", "mine.md"]
    listed = [json.loads(line)["chunk"] for line in Path("c/chunks.jsonl").read_text(encoding="utf-8").splitlines()]
    assert sorted(listed) == names[:5]


def test_a_foreign_file_in_the_way_is_not_overwritten() -> None:
    Path("c").mkdir()
    Path("c/a_0001.txt").write_text("mine", encoding="utf-8")
    with pytest.raises(DataError, match="in the way"):
        write_chunks(Path("c"), chunks_of(source("一句话。", "a.txt"), Estimate(), 10))
    assert Path("c/a_0001.txt").read_text(encoding="utf-8") == "mine"
