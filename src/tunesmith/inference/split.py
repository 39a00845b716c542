"""Text as it comes -> thought, content and what may be a tool call. The same code serves streams and whole answers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

Kind = Literal["reasoning", "content"]
Piece = tuple[Kind, str]


def overlap(text: str, word: str) -> int:
    """Length of the longest end of `text` that `word` begins with, shorter than the whole word."""
    return next((n for n in range(min(len(text), len(word) - 1), 0, -1) if text.endswith(word[:n])), 0)


@dataclass(slots=True)
class ThoughtSplitter:
    """Parts a thought from the answer behind it.

    Marks are looked for without their outer blanks, since models are free with them. Line breaks around the thought go.

    Attributes:
        words: the marks around a thought; None: this model writes none.
        is_inside: the prompt has opened the thought already.
    """

    words: tuple[str, str] | None
    is_inside: bool = False
    _held: str = ""
    _is_begun: bool = False
    _is_after: bool = False
    _has_text: bool = False

    def push(self, text: str) -> list[Piece]:
        """Takes text; returns what is certain now."""
        if self.words is None:
            return [("content", text)] if text else []
        self._held += text
        return self._advance(final=False)

    def finish(self) -> list[Piece]:
        """What was held back. A thought that was cut off stays a thought."""
        return [] if self.words is None else self._advance(final=True)

    def _advance(self, *, final: bool) -> list[Piece]:
        pieces: list[Piece] = []
        if not self._is_begun and not self._begin(final):
            return pieces
        if self.is_inside:
            pieces += self._inside(final)
        if not self.is_inside:
            pieces += self._outside(final)
        return pieces

    def _begin(self, final: bool) -> bool:
        """Whether it is decided what the answer begins with."""
        assert self.words is not None
        opening = self.words[0].strip()
        stripped = self._held.lstrip()
        if stripped.startswith(opening):
            self._held, self.is_inside = stripped[len(opening) :], True
        elif not final and opening.startswith(stripped):
            return False
        self._is_begun = True
        return True

    def _inside(self, final: bool) -> list[Piece]:
        assert self.words is not None
        closing = self.words[1].strip()
        if not self._has_text:
            self._held = self._held.lstrip("\n")
        thought, mark, rest = self._held.partition(closing)
        if mark:
            thought, self._held, self.is_inside, self._is_after = thought.rstrip("\n"), rest, False, True
        elif final:
            thought, self._held = thought.rstrip("\n"), ""
        else:
            certain = len(thought) - overlap(thought, closing)
            certain = len(thought[:certain].rstrip("\n"))
            thought, self._held = thought[:certain], self._held[certain:]
        self._has_text = self._has_text or bool(thought)
        return [("reasoning", thought)] if thought else []

    def _outside(self, final: bool) -> list[Piece]:
        if self._is_after:
            self._held = self._held.lstrip("\n")
            if not self._held:
                return []
            self._is_after = False
        text, self._held = self._held, ""
        return [("content", text)] if text else []


@dataclass(slots=True)
class CallWatch:
    """Lets content through up to where a tool call may begin, and keeps the rest until the answer is whole.

    Attributes:
        openings: texts that calls begin with; None: no tools, everything goes through; empty: a call may begin
            anywhere, so nothing goes through.
        text: all content so far.
    """

    openings: Sequence[str] | None
    text: str = ""
    _sent: int = 0
    _is_held: bool = False

    def push(self, text: str) -> str:
        """Takes content; returns what cannot belong to a call."""
        self.text += text
        if self.openings is None:
            self._sent = len(self.text)
            return text
        if self._is_held or not self.openings:
            return ""
        found = [place for word in self.openings if (place := self.text.find(word)) >= 0]
        if found:
            self._is_held = True
            return self._release(len(self.text[: min(found)].rstrip("\n")))
        kept = max(overlap(self.text, word) for word in self.openings)
        return self._release(len(self.text[: len(self.text) - kept].rstrip("\n")))

    def rest(self) -> str:
        """What was kept; when it turned out to be no call, it is content."""
        return self.text[self._sent :]

    def _release(self, end: int) -> str:
        out = self.text[self._sent : max(self._sent, end)]
        self._sent = max(self._sent, end)
        return out
