"""Tokens of a text: counted by a tokenizer, or estimated from characters where none is named."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol

from tunesmith.core.log import get_logger

if TYPE_CHECKING:
    from tunesmith.config.schema import RunConfig

_logger = get_logger(__name__)
_PIECE = re.compile(r"(?P<word>[A-Za-z\u00c0-\u024f]+)|\d{1,3}|[^\sA-Za-z\u00c0-\u024f\d]")
_LETTERS = 6
"""Letters of a word that count as one token in an estimate."""


class TokenCounter(Protocol):
    """Counts tokens."""

    name: str

    def counts(self, texts: Sequence[str]) -> list[int]:
        """Tokens of each text."""
        ...


class Estimate:
    """One token a Chinese character or sign, one for every six letters of a word: rather too many than too few."""

    name = "an estimate"

    def counts(self, texts: Sequence[str]) -> list[int]:
        """Tokens of each text."""
        return [sum(self._tokens(match) for match in _PIECE.finditer(text)) for text in texts]

    def _tokens(self, match: re.Match[str]) -> int:
        return -(-len(match["word"]) // _LETTERS) if match["word"] else 1


class TokenizerCounter:
    """Counts as a model's tokenizer does, special tokens left out."""

    def __init__(self, tokenizer: Any, name: str) -> None:
        self.name = f"the tokenizer of {name}"
        self._tokenizer = tokenizer

    def counts(self, texts: Sequence[str]) -> list[int]:
        """Tokens of each text."""
        if not texts:
            return []
        # `verbose=False`: a text longer than the model's context is no mistake here.
        return [len(ids) for ids in self._tokenizer(list(texts), add_special_tokens=False, verbose=False)["input_ids"]]


def make_counter(config: RunConfig) -> TokenCounter:
    """The counter that a configuration asks for.

    Raises:
        ModelError: the named model or its tokenizer cannot be found.
    """
    name = config.chunk_tokenizer or config.model_name_or_path
    if not name:
        _logger.info("tokens are estimated from characters; chunk_tokenizer names a model to count with")
        return Estimate()
    from tunesmith.models.hub import resolve_model
    from tunesmith.models.tokenizer import read_tokenizer

    found = resolve_model(name, revision=config.model_revision, cache_dir=config.cache_dir, token=config.hf_hub_token)
    return TokenizerCounter(read_tokenizer(found.path, trust_remote_code=config.trust_remote_code), name)
