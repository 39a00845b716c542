"""Keeps the text of rows and requests from becoming control tokens.

Guarded are the tokenizer's special tokens and every other added token that the template writes itself (role marks are
not always registered as special). The private copy of the tokenizer reads guarded names as plain text; where the
template means the token, the text holds a private name ("twin") instead, so that everything around it - prefix blanks,
normalisation, stripping - is as in one ordinary call.
"""

from __future__ import annotations

import copy
import functools
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

_TWIN = "\uf8f0{index}\uf8f1"


@dataclass(frozen=True)
class Guard:
    """The guarded tokens of one tokenizer under one template.

    Attributes:
        tokenizer: whose tokens they are; never changed.
        names: their texts.
    """

    tokenizer: Any
    names: tuple[str, ...]

    @functools.cached_property
    def _pattern(self) -> re.Pattern[str]:
        ordered = sorted(self.names, key=len, reverse=True)
        return re.compile("|".join(map(re.escape, ordered)) if ordered else "(?!)")

    @functools.cached_property
    def _openings(self) -> frozenset[str]:
        return frozenset(name[:2] for name in self.names)

    @functools.cached_property
    def _twins(self) -> dict[str, str]:
        return {name: _TWIN.format(index=index) for index, name in enumerate(self.names)}

    def occurs_in(self, text: str) -> bool:
        """Whether a guarded name is in the text; the two-character test keeps it cheap where there are hundreds."""
        return any(opening in text for opening in self._openings) and self._pattern.search(text) is not None

    def rename(self, text: str) -> str:
        """Template text with the private names in it."""
        return self._pattern.sub(lambda match: self._twins[match.group()], text)

    def split(self, text: str) -> list[tuple[str, bool]]:
        """(piece, is a guarded name) in order, without empty pieces."""
        pieces = re.split(f"({self._pattern.pattern})", text)
        return [(piece, index % 2 == 1) for index, piece in enumerate(pieces) if piece]

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """Ids of texts in which guarded names are plain text and private names are the tokens."""
        if getattr(self.tokenizer, "backend_tokenizer", None) is None:
            return [self._encode_slowly(text) for text in texts]
        backend, to_real = self._private
        encodings = backend.encode_batch_fast(list(texts), add_special_tokens=False)
        return [[to_real.get(index, index) for index in encoding.ids] for encoding in encodings]

    @functools.cached_property
    def _private(self) -> tuple[Any, dict[int, int]]:
        """The private copy of the backend, and twin id -> id."""
        from tokenizers import AddedToken

        backend = copy.deepcopy(self.tokenizer.backend_tokenizer)
        backend.no_padding()
        backend.no_truncation()
        known = {token.content: (index, token) for index, token in self.tokenizer.added_tokens_decoder.items()}
        flags = [{key: getattr(known[name][1], key) for key in ("lstrip", "rstrip")} for name in self.names]
        pairs = list(zip(self.names, flags, strict=True))
        backend.add_special_tokens([AddedToken(name, special=True, normalized=False, **flag) for name, flag in pairs])
        twins = [AddedToken(self._twins[name], special=False, normalized=False, **flag) for name, flag in pairs]
        backend.add_tokens(twins)
        backend.encode_special_tokens = True
        return backend, {backend.token_to_id(self._twins[name]): known[name][0] for name in self.names}

    def _encode_slowly(self, text: str) -> list[int]:
        """For tokenizers without a backend: stretches between private names, one by one."""
        names = {twin: name for name, twin in self._twins.items()}
        ids: list[int] = []
        for piece in re.split("(\uf8f0\\d+\uf8f1)", text):
            if piece in names:
                ids.append(self.tokenizer.convert_tokens_to_ids(names[piece]))
            elif piece:
                ids += self.tokenizer(piece, add_special_tokens=False, split_special_tokens=True)["input_ids"]
        return ids


def guard_of(tokenizer: Any, control_text: str) -> Guard:
    """The guard of a tokenizer under a template whose own text is `control_text`; kept for the next call."""
    return _guard(tokenizer, control_text, len(tokenizer))


@functools.lru_cache(maxsize=4)
def _guard(tokenizer: Any, control_text: str, size: int) -> Guard:
    added = tokenizer.added_tokens_decoder.values()
    names = [
        token.content
        for token in added
        if token.content.strip() and (token.special or (len(token.content) > 2 and token.content in control_text))
    ]
    return Guard(tokenizer, tuple(names))
