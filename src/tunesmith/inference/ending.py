"""When a stop text ends an answer: the same for every engine. End tokens are ids and need no such care."""

from __future__ import annotations

from collections.abc import Callable, Sequence

Decode = Callable[[list[int]], str]
"""Token ids to text."""


def has_stop_text(answer: Sequence[int], stop: Sequence[str], decode: Decode | None) -> bool:
    """Whether the newest token of an answer made one of the stop texts whole.

    Args:
        answer: ids so far, looked at after every token.
        stop: texts; empty ones count for nothing.
        decode: None finds none.
    """
    texts = [text for text in stop if text]
    if not texts or decode is None:
        return False
    # A stop text can be no longer than its bytes in tokens, plus one that it begins inside of.
    longest = max(len(text.encode(errors="replace")) for text in texts)
    recent = decode(list(answer[-(longest + 1) :]))
    return any(text in recent for text in texts)
