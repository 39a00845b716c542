"""Ids of whole words, remembered: text repeats its words, and byte-level tokenizers read each of them by itself.

A tokenizer that cuts before every blank between two words gives for "a b" the ids of "a" and then those of " b". Which
tokenizers do is read off their definition and tried on probes; others get each text whole.
"""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Sequence
from typing import Any

import numpy as np

_MOST_WORDS, _LONGEST = 1 << 16, 48
"""Words that are remembered (about 15 MB), and characters of the longest one."""
_BORDER = re.compile(r"(?<=\S) (?=\S)")
_LONELY = re.compile(r" (?!\S)|[^\S \n]")
"""A blank before another or at the end, or any but blank and newline: such a text is cut with more care."""
_CASES = "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_BLANKS = r"|\s+(?!\S)|\s+"
_GPT4 = rf"{_CASES}|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|\p{{N}}%s| ?[^\s\p{{L}}\p{{N}}]+[\r\n]*|\s*[\r\n]+{_BLANKS}"
_DEEPSEEK = (
    r"""[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|"""
    + "[^\r\n"
    + r"\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+"
    + "[\r\n]*"
    + r"|\s*"
    + "[\r\n]+"
    + _BLANKS
)
CUTTING = frozenset({_GPT4 % "", _GPT4 % "{1,3}", _DEEPSEEK})
"""Patterns of `Split` (Qwen, Llama 3 and Phi 4, DeepSeek V3) that cut before a blank between two words: it begins a
match, never stands inside or at the end of one, and nothing looks behind."""
HARMLESS = frozenset({r"\p{N}{1,3}", "[一-龥぀-ゟ゠-ヿ]+"})
"""Patterns that match no blank (DeepSeek V3)."""
_PROBES = ("a", "Ab", "né", "1", "1234", "'s", "x.", "...", "(", '"', "_b", "你好", "か", "🙂", "\u0301a", "a\nb", "<|")


class Words:
    """Encodes texts with one tokenizer; what it has seen of words it looks up.

    Args:
        backend: a `tokenizers.Tokenizer` that neither pads nor truncates.
    """

    def __init__(self, backend: Any) -> None:
        self._backend = backend
        self._firsts: dict[str, bytes] = {}
        self._others: dict[str, bytes] = {}
        self.remembers = is_cut_at_blanks(backend) and _holds_on_probes(backend)

    def encode(self, texts: Sequence[str]) -> list[bytes]:
        """Ids of each text as int32, special tokens read and none added."""
        if not self.remembers:
            return _encode(self._backend, texts)
        cut = [words_of(text) for text in texts]
        firsts, self._firsts = self._look_up({words[0] for words in cut}, self._firsts, "")
        heads = [firsts[words.pop(0)] for words in cut]
        others, self._others = self._look_up(set().union(*cut), self._others, " ")
        return [head + b"".join(map(others.__getitem__, words)) for head, words in zip(heads, cut, strict=True)]

    def _look_up(
        self, words: set[str], memory: dict[str, bytes], before: str
    ) -> tuple[dict[str, bytes], dict[str, bytes]]:
        """Ids of at least these words with `before` in front of each, and what is remembered from now on.

        Another thread may be reading the memory: words are added to it, and where there are too many, or long ones that
        are not worth their place, another takes its place.
        """
        new = list(words.difference(memory))
        if not new:
            return memory, memory
        fresh = dict(zip(new, _encode(self._backend, [before + word for word in new]), strict=True))
        kept = {word: ids for word, ids in fresh.items() if len(word) <= _LONGEST}
        if len(memory) + len(kept) > _MOST_WORDS:
            return {word: memory[word] for word in words.difference(fresh)} | fresh, kept
        if len(kept) == len(fresh):
            memory |= fresh
            return memory, memory
        found = memory | fresh
        memory |= kept
        return found, memory


def words_of(text: str) -> list[str]:
    """The text without the blanks that stand alone between two other characters, which belong to the words after."""
    if _LONELY.search(text) is None and "\n " not in text:
        return text.split(" ")
    return _BORDER.split(text)


def _encode(backend: Any, texts: Sequence[str]) -> list[bytes]:
    encodings = backend.encode_batch_fast(list(texts), add_special_tokens=False)
    return [np.array(encoding.ids, dtype=np.int32).tobytes() for encoding in encodings]


def is_cut_at_blanks(backend: Any) -> bool:
    """Whether the tokenizer's definition says that it reads each word by itself."""
    if type(backend.model).__name__ != "BPE" or backend.model.dropout:
        return False
    added = backend.get_added_tokens_decoder().values()
    if any(token.lstrip or token.rstrip or token.single_word or _BORDER.search(token.content) for token in added):
        return False
    if any(step["type"] != "NFC" for step in _steps(backend.normalizer, "normalizers")):
        return False
    steps = _steps(backend.pre_tokenizer, "pretokenizers")
    if not steps or steps[-1]["type"] != "ByteLevel" or steps[-1]["add_prefix_space"]:
        return False
    patterns = [_pattern(step) for step in steps[:-1]]
    # With `use_regex` bytes are cut by GPT-2's pattern, which is of the same kind.
    is_cut = steps[-1]["use_regex"] or any(pattern in CUTTING for pattern in patterns)
    return is_cut and all(pattern in CUTTING | HARMLESS for pattern in patterns)


def _steps(part: Any, name: str) -> list[dict[str, Any]]:
    """What a part of a tokenizer does, one after the other, as tokenizer.json has it."""
    return [] if part is None else _flat(json.loads(part.__getstate__()), name)


def _flat(step: dict[str, Any], name: str) -> list[dict[str, Any]]:
    if step["type"] == "Sequence":
        return [inner for part in step[name] for inner in _flat(part, name)]
    return [step]


def _pattern(step: dict[str, Any]) -> str:
    """The pattern that a step cuts by, without losing a character; empty where it is another kind of step."""
    if step["type"] == "Digits":
        return r"\p{N}{1,3}"
    if step["type"] != "Split" or (step["behavior"], step["invert"]) not in (("Isolated", False), ("Removed", True)):
        return ""
    return str(step["pattern"].get("Regex", ""))


def _holds_on_probes(backend: Any) -> bool:
    """Whether the ids of two words are those of the one and of the other, for words of all kinds."""
    texts = [f"{left} {right}" for left in _PROBES for right in _PROBES]
    whole = _encode(backend, texts)
    apart = [[first, *[f" {word}" for word in rest]] for first, *rest in map(words_of, texts)]
    ids = iter(_encode(backend, [word for words in apart for word in words]))
    return all(one == b"".join(next(ids) for _ in words) for one, words in zip(whole, apart, strict=True))


@functools.lru_cache(maxsize=4)
def words_for(tokenizer: Any, size: int) -> Words:
    """The words of a tokenizer with `size` tokens; kept for the next call."""
    return Words(tokenizer.backend_tokenizer)
