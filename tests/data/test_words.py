"""Remembered words give the ids of whole texts; tokenizers that do not read word by word are left alone."""

from __future__ import annotations

import os
import random
from pathlib import Path
from typing import Any

import pytest
from tests.conftest import make_tiny_tokenizer
from tokenizers import AddedToken, Regex, Tokenizer, models, normalizers, pre_tokenizers

from tunesmith.data import words
from tunesmith.data.words import CUTTING, Words, is_cut_at_blanks, words_of

FOLDER = os.environ.get("TUNESMITH_TEST_TOKENIZERS", "")
PIECES = [
    *(
        "a",
        "b",
        "A",
        "é",
        "1",
        "23",
        "1234",
        " ",
        " ",
        " ",
        " ",
        "  ",
        "\n",
        "\n\n",
        "\t",
        ".",
        ",",
        "...",
        "'s",
        "'",
        "(",
    ),
    *("你", "好", "か", "🙂", "\u0301", "\u200d", "\xa0", "\u3000", "-", "_", "/", "$", "<|im_end|>", "\r\n", "ß", "и"),
    *("\u2028", "x=1", "%", '"', "\x1c", "\u180e", "\x85", "the", "quick", "fox", "#", "[", "🏳️‍🌈", "ﬁ", "²"),
]


def texts(count: int, seed: int = 1) -> list[str]:
    source = random.Random(seed)
    return ["".join(source.choices(PIECES, k=source.randrange(40))) for _ in range(count)]


def whole(backend: Any, given: list[str]) -> list[bytes]:
    return words._encode(backend, given)


def assert_same(backend: Any, given: list[str]) -> Words:
    memory = Words(backend)
    for _ in range(2):  # the second time out of the memory
        for mine, theirs, text in zip(memory.encode(given), whole(backend, given), given, strict=True):
            assert mine == theirs, repr(text)
    return memory


@pytest.fixture
def backend() -> Any:
    return make_tiny_tokenizer().backend_tokenizer


def test_texts_of_all_kinds(backend: Any) -> None:
    assert assert_same(backend, texts(3000)).remembers


def test_known_words_are_not_asked_again(backend: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    memory = Words(backend)
    asked: list[str] = []
    original = words._encode
    monkeypatch.setattr(words, "_encode", lambda one, new: asked.extend(new) or original(one, new))
    memory.encode(["the quick fox", "the lazy fox"])
    assert sorted(asked) == [" fox", " lazy", " quick", "the"]
    asked.clear()
    memory.encode(["the lazy quick", "x" * 99 + " fox"])
    assert asked == ["x" * 99]
    memory.encode(["x" * 99])  # too long to be worth a place
    assert asked == ["x" * 99] * 2


def test_the_memory_is_bounded(backend: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(words, "_MOST_WORDS", 50)
    given = texts(400, seed=2)
    memory = Words(backend)
    for start in range(0, len(given), 10):
        batch = given[start : start + 10]
        assert memory.encode(batch) == whole(backend, batch)
    assert len(memory._firsts) < 100
    assert len(memory._others) < 100


@pytest.mark.parametrize("text", ["", " ", "a", " a", "a ", "a  b", "a b", "a\n b", "a \nb", "\na b\n", "a\u3000 b"])
def test_words_joined_by_blanks_are_the_text(text: str) -> None:
    assert " ".join(words_of(text)) == text
    assert all(word for word in words_of(text)[1:])


@pytest.mark.parametrize("pattern", sorted(CUTTING))
def test_each_pattern_cuts_at_blanks(backend: Any, pattern: str) -> None:
    split = pre_tokenizers.Split(Regex(pattern), "isolated")
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [split, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    backend.normalizer = normalizers.NFC()
    assert assert_same(backend, texts(1500, seed=3)).remembers


def other_pattern(backend: Any) -> None:
    steps = [pre_tokenizers.Split(Regex(r"\w+ \w+"), "isolated"), pre_tokenizers.ByteLevel(False, use_regex=False)]
    backend.pre_tokenizer = pre_tokenizers.Sequence(steps)


def prefix(backend: Any) -> None:
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)


def whole_text(backend: Any) -> None:
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)


def metaspace(backend: Any) -> None:
    backend.pre_tokenizer = pre_tokenizers.Metaspace()


def no_steps(backend: Any) -> None:
    backend.normalizer = normalizers.Prepend("\u2581")


def greedy_token(backend: Any) -> None:
    backend.add_special_tokens([AddedToken("<end>", rstrip=True)])


def two_words(backend: Any) -> None:
    backend.add_tokens(["quick brown"])


@pytest.mark.parametrize(
    "change",
    [other_pattern, prefix, whole_text, metaspace, no_steps, greedy_token, two_words],
    ids=lambda one: one.__name__,
)
def test_who_does_not_read_word_by_word_gets_whole_texts(backend: Any, change: Any) -> None:
    change(backend)
    assert not assert_same(backend, ["the quick brown fox <end> x", "a b", *texts(200)]).remembers


def test_other_models_get_whole_texts() -> None:
    wordpiece = Tokenizer(models.WordPiece({"[UNK]": 0, "a": 1}, unk_token="[UNK]"))
    wordpiece.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    assert not is_cut_at_blanks(wordpiece)


def test_probes_catch_what_the_definition_hides(monkeypatch: pytest.MonkeyPatch) -> None:
    letters = {letter: index for index, letter in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    backend = Tokenizer(models.BPE(vocab={**letters, "a\u0120": len(letters)}, merges=[("a", "\u0120")]))
    other_pattern(backend)
    monkeypatch.setattr(words, "CUTTING", frozenset({r"\w+ \w+"}))
    assert is_cut_at_blanks(backend)
    assert not assert_same(backend, ["a b", *texts(100)]).remembers


@pytest.mark.skipif(not FOLDER, reason="TUNESMITH_TEST_TOKENIZERS names no folder of real tokenizers")
@pytest.mark.parametrize("family", ["deepseek_v3", "gemma2", "llama3", "mistral_v3", "phi4", "qwen2_5", "qwen3"])
def test_real_tokenizers(family: str) -> None:
    backend = Tokenizer.from_file(str(Path(FOLDER) / family / "tokenizer.json"))
    assert assert_same(backend, texts(2000)).remembers == (family not in ("gemma2", "mistral_v3"))
