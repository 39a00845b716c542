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

CONTENT_TOKENS = "content_tokens"
"""Entry of tokenizer_config.json: special tokens that the user added (`add_special_tokens`) to write them in rows."""


def _any_of(names: Sequence[str]) -> re.Pattern[str]:
    ordered = sorted(names, key=len, reverse=True)
    return re.compile("|".join(map(re.escape, ordered)) if ordered else "(?!)")


@dataclass(frozen=True)
class Guard:
    """The guarded tokens of one tokenizer under one template.

    Attributes:
        tokenizer: whose tokens they are; never changed.
        names: their texts.
        content_names: tokens that the user added for use inside rows (`CONTENT_TOKENS`): they stay tokens there.
    """

    tokenizer: Any
    names: tuple[str, ...]
    content_names: tuple[str, ...] = ()

    @functools.cached_property
    def _pattern(self) -> re.Pattern[str]:
        return _any_of(self.names)

    @functools.cached_property
    def _content_pattern(self) -> re.Pattern[str]:
        return _any_of(self.content_names)

    @functools.cached_property
    def _twinned(self) -> tuple[str, ...]:
        return (*self.names, *self.content_names)

    @functools.cached_property
    def _openings(self) -> frozenset[str]:
        return frozenset(name[:2] for name in self.names)

    @functools.cached_property
    def _firsts(self) -> str:
        return "".join(sorted({name[0] for name in self.names}))

    @functools.cached_property
    def _twins(self) -> dict[str, str]:
        return {name: _TWIN.format(index=index) for index, name in enumerate(self._twinned)}

    def occurs_in(self, text: str) -> bool:
        """Whether a guarded name is in the text; the tests of the first characters keep it cheap."""
        for first in self._firsts:
            if first in text:
                break
        else:
            return False
        return any(opening in text for opening in self._openings) and self._pattern.search(text) is not None

    def rename(self, text: str) -> str:
        """Template text with the private names in it."""
        return self.admit(self._pattern.sub(lambda match: self._twins[match.group()], text))

    def admit(self, text: str) -> str:
        """Text of a row with the private names of tokens that may stand in rows."""
        return self._content_pattern.sub(lambda match: self._twins[match.group()], text)

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
        flags = [{key: getattr(known[name][1], key) for key in ("lstrip", "rstrip")} for name in self._twinned]
        pairs = list(zip(self._twinned, flags, strict=True))
        backend.add_special_tokens([AddedToken(name, special=True, normalized=False, **flag) for name, flag in pairs])
        twins = [AddedToken(self._twins[name], special=False, normalized=False, **flag) for name, flag in pairs]
        backend.add_tokens(twins)
        backend.encode_special_tokens = True
        return backend, {backend.token_to_id(self._twins[name]): known[name][0] for name in self._twinned}

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
    meant = set(tokenizer.init_kwargs.get(CONTENT_TOKENS) or ())
    names = [
        token.content
        for token in added
        if token.content.strip() and (token.special or (len(token.content) > 2 and token.content in control_text))
    ]
    guarded = tuple(name for name in names if name not in meant)
    return Guard(tokenizer, guarded, tuple(name for name in names if name in meant))
