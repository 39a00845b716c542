"""Text on the terminal with what is trained told apart: colours where there are any, marks elsewhere."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from typing import Any

MARKS = ("⟦", "⟧")
"""Around trained text where the terminal has no colours."""
BORDER = "|"
"""Between two tokens where the terminal has no colours."""
_STYLES = {True: "bold green", False: "bright_black"}
_RULE_WIDTH = 80
_MOST_PIECES = 8
"""Tokens that one character can take; beyond that the bytes are broken."""


class Painter:
    """Writes results to stdout."""

    def __init__(self) -> None:
        self.console: Any = None
        if sys.stdout.isatty():
            from rich.console import Console

            self.console = Console(highlight=False, soft_wrap=True)

    def legend(self) -> None:
        """Says how trained text is told apart."""
        if self.console:
            self.console.print("[bold green]green[/] is trained, [bright_black]grey[/] is only read")
        else:
            self.note(f"{'...'.join(MARKS)} is trained, the rest is only read")

    def note(self, text: str) -> None:
        """A plain line."""
        sys.stdout.write(f"{text}\n")

    def heading(self, text: str) -> None:
        """A line above a row."""
        if self.console:
            from rich.markup import escape

            self.console.print()
            self.console.rule(f"[bold]{escape(text)}[/]", align="left", style="cyan")
        else:
            self.note(f"\n{text}\n{'-' * min(len(text), _RULE_WIDTH)}")

    def stretches(self, parts: Iterable[tuple[str, bool]]) -> None:
        """Running text: (text, trained)."""
        if self.console:
            self._styled([(text, _STYLES[trained]) for text, trained in parts])
        else:
            self.note("".join(text.join(MARKS) if trained else text for text, trained in parts))

    def tokens(self, pieces: Sequence[tuple[str, bool]]) -> None:
        """One token after the other: (text, trained). Every second one is underlined, or a border stands between."""
        if self.console:
            lines = [" underline" if index % 2 else "" for index in range(len(pieces))]
            self._styled([(text, _STYLES[on] + line) for (text, on), line in zip(pieces, lines, strict=True)])
            return
        shown, was = "", False
        for index, (text, trained) in enumerate(pieces):
            change = MARKS[1 - trained] if trained != was else ""
            shown += (change or BORDER if index else change) + text
            was = trained
        self.note(shown + (MARKS[1] if was else ""))

    def _styled(self, parts: list[tuple[str, str]]) -> None:
        from rich.text import Text

        self.console.print(Text.assemble(*parts))


def token_texts(ids: Sequence[int], tokenizer: Any) -> list[str]:
    """Text of each token; one that ends inside a character has none, the text comes with the character's last token."""
    texts: list[str] = []
    pending: list[int] = []
    for token in ids:
        pending.append(token)
        text = tokenizer.decode(pending)
        if "\ufffd" in text and len(pending) < _MOST_PIECES:
            texts.append("")
        else:
            texts.append(text)
            pending = []
    return texts
