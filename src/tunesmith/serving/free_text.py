"""Free text up to where a call begins, and a grammar from there on: what holds calls of an answer that may be text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from tunesmith.serving.grammar import DEAD, Automaton, Node

_OPENING, _THOUGHT, _TEXT = range(3)


@dataclass(frozen=True, slots=True)
class Head:
    """What free text ends with.

    Attributes:
        text: where it has come, only what fits `rest` may follow.
        rest: all that follows, to the end of the answer.
        given: what `text` holds of `rest` already.
        start: what stands for all text up to there, where the calls behind it are read alone.
    """

    text: bytes
    rest: Node
    given: bytes = b""
    start: str = ""


@dataclass(slots=True)
class LateGrammar(Automaton):
    """An automaton whose states below DEAD are those of free text: anything may follow, and the text may end.

    Heads are not looked for in a thought that opens the answer.

    Args:
        start: is not used.
        rules: as of Automaton.
        heads: of those that end at the same byte the longest counts.
        thought_words: marks around a thought; None: there are none.
        is_thinking: a thought is open when the answer begins.
    """

    heads: Sequence[Head] = ()
    thought_words: tuple[bytes, bytes] | None = None
    is_thinking: bool = False
    _free: list[tuple[int, bytes]] = field(default_factory=list)
    _free_ids: dict[tuple[int, bytes], int] = field(default_factory=dict)
    _begun: frozenset[bytes] = field(init=False)

    def __post_init__(self) -> None:
        self._begun = frozenset(head.text[:n] for head in self.heads for n in range(len(head.text)))

    @property
    def literals(self) -> list[bytes]:
        """Bytes without which no text goes on from a state that is idle to one that is not free."""
        return [head.text for head in self.heads] + list((self.thought_words or ())[1:])

    def first(self) -> int:
        """The state before any answer."""
        if self.is_thinking:
            return self._free_state(_THOUGHT, b"")
        return self.in_text() if self.thought_words is None else self._free_state(_OPENING, b"")

    def in_text(self) -> int:
        """The state before any text that is no thought; a line begins there."""
        return self._free_state(_TEXT, self._end(b"\n"))

    def move(self, state: int, byte: int) -> int:
        """The state after one more byte, or DEAD."""
        if state >= DEAD:
            return super(LateGrammar, self).move(state, byte)
        key = (state, byte)
        if key not in self._moves:
            phase, held = self._free[-2 - state]
            self._moves[key] = self._after(phase, held + bytes((byte,)))
        return self._moves[key]

    def may_end(self, state: int) -> bool:
        """Whether the answer may be over here."""
        return state < DEAD or super(LateGrammar, self).may_end(state)

    def is_free(self, state: int) -> bool:
        """Whether no call has begun."""
        return state < DEAD

    def is_idle(self, state: int) -> bool:
        """Whether no mark and no head is begun, either."""
        return state < DEAD and not self._free[-2 - state][1]

    def room(self, state: int, part: Node) -> float | None:
        """As of Automaton; free text has no bounds to count."""
        return None if state < DEAD else super(LateGrammar, self).room(state, part)

    def head_in(self, text: bytes) -> tuple[Head, int] | None:
        """The head that ends the free part of a text without a thought, and where; None: all of it is free."""
        state = self.in_text()
        for place, byte in enumerate(text):
            state = self.move(state, byte)
            if state >= DEAD:
                return self._head(b"\n" + text[: place + 1]), place + 1
        return None

    def _after(self, phase: int, held: bytes) -> int:
        if phase == _TEXT:
            if any(held.endswith(head.text) for head in self.heads):
                head = self._head(held)
                return self.move_all(self.at(head.rest), head.given)
            return self._free_state(_TEXT, self._end(held))
        assert self.thought_words is not None
        opening, closing = self.thought_words
        if phase == _THOUGHT:
            if held.endswith(closing):
                return self.in_text()
            return self._free_state(_THOUGHT, _overlap(held, closing))
        held = held.lstrip()
        if held == opening:
            return self._free_state(_THOUGHT, b"")
        return self._free_state(_OPENING, held) if opening.startswith(held) else self.move_all(self.in_text(), held)

    def _head(self, held: bytes) -> Head:
        return max((head for head in self.heads if held.endswith(head.text)), key=lambda head: len(head.text))

    def _end(self, held: bytes) -> bytes:
        """The longest end of some bytes that a head begins with."""
        return next(held[n:] for n in range(len(held) + 1) if held[n:] in self._begun)

    def _free_state(self, phase: int, held: bytes) -> int:
        key = (phase, held)
        if key not in self._free_ids:
            self._free_ids[key] = -2 - len(self._free)
            self._free.append(key)
        return self._free_ids[key]


def _overlap(held: bytes, word: bytes) -> bytes:
    return next(held[n:] for n in range(len(held) + 1) if word.startswith(held[n:]))
