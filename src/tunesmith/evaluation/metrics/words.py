"""Text to words in any language: jieba for Chinese, characters where a script writes no blanks, words elsewhere."""

from __future__ import annotations

import functools
import logging
import unicodedata
from collections.abc import Iterator
from itertools import groupby

_HAN = ((0x3400, 0x4DBF), (0x4E00, 0x9FFF), (0xF900, 0xFAFF), (0x20000, 0x3FFFF))
_UNSPACED = (
    (0x0E00, 0x0EFF),  # Thai, Lao
    (0x1000, 0x109F),  # Myanmar
    (0x1780, 0x17FF),  # Khmer
    (0x3040, 0x30FF),  # kana
    (0x31F0, 0x31FF),
)
_INNER = {"'": "alpha", "’": "alpha", ".": "digit", ",": "digit"}
"""Marks that stay inside a word between two letters, or between two digits."""
LANGUAGES = ("auto", "zh", "words", "characters")


@functools.lru_cache(maxsize=4096)
def _kind(character: str) -> str:
    code = ord(character)
    if any(low <= code <= high for low, high in _HAN):
        return "han"
    category = unicodedata.category(character)
    if category == "Mn" or category == "Mc":
        return "mark"
    if any(low <= code <= high for low, high in _UNSPACED) and category[0] in "LN":
        return "alone"
    if category[0] in "LN" or character == "_":
        return "word"
    return "blank" if character.isspace() else "sign"


def _kinds(text: str) -> list[tuple[str, str]]:
    """(character, kind); a combining mark belongs to what stands before it, an inner mark to its word."""
    found: list[tuple[str, str]] = []
    for place, character in enumerate(text):
        kind = _kind(character)
        inner = _INNER.get(character)
        if kind == "mark":
            kind = "word" if not found or found[-1][1] in ("word", "blank", "sign") else "mark"
        elif inner and 0 < place < len(text) - 1:
            around = text[place - 1], text[place + 1]
            fits = all(map(str.isalpha if inner == "alpha" else str.isdigit, around))
            kind = "word" if fits and {_kind(around[0]), _kind(around[1])} == {"word"} else kind
        found.append((character, kind))
    return found


def has_han(text: str) -> bool:
    """Whether a tenth of the text's letters or more are Chinese characters."""
    letters = [character for character in text if character.isalpha()]
    return bool(letters) and sum(_kind(character) == "han" for character in letters) * 10 >= len(letters)


def cut_chinese(text: str) -> Iterator[str]:
    """Jieba's words."""
    import jieba

    jieba.setLogLevel(logging.WARNING)
    yield from jieba.cut(text)


def tokens(text: str, language: str = "auto") -> list[str]:
    """Words and signs, blanks left out.

    Args:
        text: any text.
        language: auto judges each character by its script; zh gives all to jieba; words parts at blanks alone;
            characters makes each character a token.
    """
    if language == "words":
        return text.split()
    if language == "characters":
        return [character for character in text if not character.isspace()]
    if language == "zh":
        return [word for word in cut_chinese(text) if not word.isspace()]
    found: list[str] = []
    for kind, group in groupby(_kinds(text), key=lambda pair: "alone" if pair[1] == "mark" else pair[1]):
        run = list(group)
        piece = "".join(character for character, _ in run)
        if kind == "han":
            found += cut_chinese(piece)
        elif kind == "word":
            found.append(piece)
        elif kind in ("alone", "sign"):
            for character, own in run:
                if own == "mark" and found:
                    found[-1] += character
                else:
                    found.append(character)
    return found


def words(text: str, language: str = "auto") -> list[str]:
    """Tokens in lower case without signs: what overlap of content is counted over."""
    return [
        token.casefold() for token in tokens(text, language) if any(_kind(c) not in ("sign", "blank") for c in token)
    ]
