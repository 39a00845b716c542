"""A tokenizer's tokens as bytes, and which of them may come next in a grammar."""

from __future__ import annotations

import bisect
import codecs
import functools
import json
import re
from collections import OrderedDict
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from tunesmith.serving.free_text import LateGrammar
from tunesmith.serving.grammar import DEAD, Automaton, TokenTrie
from tunesmith.serving.json_values import CHARACTER, SAFE

if TYPE_CHECKING:
    import torch

_MOST_GRAMMARS = 16
_MOST_MASKS = 256
"""Of one grammar; each takes four bytes a token."""
_HEX_BYTE = re.compile(r"<0x([0-9A-F]{2})>")


class Vocabulary:
    """The bytes of every token that may stand in an answer; made at the first use, it takes a moment.

    Args:
        tokenizer: byte-level or sentencepiece.
        end_ids: what ends an answer.
        hidden_ids: special tokens that whoever reads the answer does not see.
    """

    def __init__(self, tokenizer: Any, end_ids: Sequence[int], hidden_ids: Collection[int] = ()) -> None:
        self._tokenizer = tokenizer
        self._hidden_ids = frozenset(hidden_ids)
        self.end_ids = tuple(end_ids)
        self.size = len(tokenizer)
        self._grammars: OrderedDict[str, Masks] = OrderedDict()

    def masks_of(self, key: str, make: Callable[[], Automaton]) -> Masks:
        """The masks of a grammar, made once for all requests that ask for it.

        Args:
            key: says what the grammar is made from.
            make: makes it.
        """
        found = self._grammars.pop(key) if key in self._grammars else Masks(make(), self)
        self._grammars[key] = found
        if len(self._grammars) > _MOST_GRAMMARS:
            self._grammars.popitem(last=False)
        return found

    def prepare(self) -> None:
        """Makes the tables now, so that the engine need not wait for them between two steps."""
        _ = self.by_id, self.read_as, self.mixed_tokens, self.all_tokens, self._by_length

    @functools.cached_property
    def _tokens(self) -> list[tuple[int, bytes]]:
        read = _byte_level if self._is_byte_level else _sentencepiece
        found = []
        for token_id, name in enumerate(self._tokenizer.convert_ids_to_tokens(range(self.size))):
            text = read(name) if name is not None and token_id not in self._special else b""
            if text:
                found.append((token_id, text))
        return found

    @functools.cached_property
    def _special(self) -> set[int]:
        added = self._tokenizer.added_tokens_decoder.items()
        return {*self._tokenizer.all_special_ids, *self.end_ids, *(i for i, token in added if token.special)}

    @functools.cached_property
    def _is_byte_level(self) -> bool:
        backend = getattr(self._tokenizer, "backend_tokenizer", None)
        return backend is not None and "ByteLevel" in str(json.loads(backend.to_str()).get("decoder"))

    def within(self, most: float) -> list[int]:
        """Tokens that may stand inside a JSON string as they are, begin with a character and have at most so many."""
        lengths, ids = self._by_length
        return ids[: bisect.bisect_right(lengths, most)]

    @functools.cached_property
    def _by_length(self) -> tuple[list[int], list[int]]:
        """Numbers of characters in order, and the tokens that have them; a character that is begun counts."""
        known = [(n, i) for i, text in self._tokens if SAFE.issuperset(text) and (n := _n_characters(text)) is not None]
        known.sort()
        return [count for count, _ in known], [token_id for _, token_id in known]

    @functools.cached_property
    def all_tokens(self) -> TokenTrie:
        """Every token."""
        return TokenTrie(self._tokens)

    @functools.cached_property
    def mixed_tokens(self) -> TokenTrie:
        """Those that hold something which a JSON string does not hold as it is."""
        return TokenTrie([(token_id, text) for token_id, text in self._tokens if not SAFE.issuperset(text)])

    @functools.cached_property
    def by_id(self) -> Mapping[int, bytes]:
        """Bytes of a token that may be demanded."""
        return dict(self._tokens)

    @functools.cached_property
    def read_as(self) -> Mapping[int, bytes]:
        """Bytes that a token adds to an answer: those of special tokens, too, where they are marks that are read."""
        shown = self._special - self._hidden_ids - set(self.end_ids)
        return {i: self._tokenizer.convert_ids_to_tokens(i).encode() for i in shown} | dict(self._tokens)

    def with_any(self, literals: Sequence[bytes]) -> list[tuple[int, bytes]]:
        """Tokens that hold one of these."""
        return [(i, text) for i, text in self._tokens if any(literal in text for literal in literals)]


def _n_characters(text: bytes) -> int | None:
    """Characters of some bytes, the last of which may be unfinished; None: they do not begin with a character."""
    decoder = codecs.getincrementaldecoder("utf-8")()
    try:
        return len(decoder.decode(text)) + bool(decoder.getstate()[0])
    except UnicodeDecodeError:
        return None


def _byte_level(name: str) -> bytes:
    """Bytes of a byte-level token's name; empty for a name that is written otherwise."""
    table = _byte_table()
    return bytes(table[char] for char in name) if all(char in table for char in name) else name.encode()


def _sentencepiece(name: str) -> bytes:
    match = _HEX_BYTE.fullmatch(name)
    return bytes.fromhex(match.group(1)) if match else name.replace("\u2581", " ").encode()


@functools.cache
def _byte_table() -> dict[str, int]:
    """GPT-2's visible characters for bytes: printable ones stand for themselves, the others begin at U+0100."""
    shown = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    hidden = [byte for byte in range(0x100) if byte not in shown]
    return {chr(byte): byte for byte in shown} | {chr(0x100 + place): byte for place, byte in enumerate(hidden)}


@dataclass(slots=True)
class Masks:
    """Which tokens a grammar allows in each of its states; what was found out serves later requests, too.

    Attributes:
        automaton: the grammar.
        vocabulary: bytes of tokens.
    """

    automaton: Automaton
    vocabulary: Vocabulary
    _found: OrderedDict[int, Any] = field(default_factory=OrderedDict)
    _with_literal: list[tuple[int, bytes]] = field(init=False)

    def __post_init__(self) -> None:
        grammar = self.automaton
        self._with_literal = self.vocabulary.with_any(grammar.literals) if isinstance(grammar, LateGrammar) else []

    def of(self, state: int) -> torch.Tensor | None:
        """Ids of the tokens that may follow in a state, the end tokens alone once the text is whole; None: any."""
        import torch

        if state not in self._found:
            allowed = self.allowed(state)
            self._found[state] = None if allowed is None else torch.tensor(allowed, dtype=torch.int32)
            if len(self._found) > _MOST_MASKS:
                self._found.popitem(last=False)
        self._found.move_to_end(state)
        return self._found[state]

    def allowed(self, state: int) -> list[int] | None:
        """Ids of the tokens that may follow in a state; None: any."""
        if state == DEAD:
            return list(self.vocabulary.end_ids)  # only where a token came that was not allowed
        automaton, vocabulary = self.automaton, self.vocabulary
        if state < DEAD:
            stopped = self._stopped(state)
            return [i for i in range(vocabulary.size) if i not in stopped] if stopped else None
        ends = list(vocabulary.end_ids) if automaton.may_end(state) else []
        room = automaton.room(state, CHARACTER)
        if room is None:
            return vocabulary.all_tokens.fitting(automaton, state) + ends
        return vocabulary.within(room) + vocabulary.mixed_tokens.fitting(automaton, state) + ends

    def _stopped(self, state: int) -> set[int]:
        """Tokens that begin a call and go on otherwise than it must."""
        grammar = self.automaton
        assert isinstance(grammar, LateGrammar)
        found = {i for i, text in self._with_literal if grammar.move_all(state, text) == DEAD}
        return found | set(self.vocabulary.all_tokens.stopped(grammar, state, grammar.is_idle))
