"""Commands that users of LLaMA-Factory know and that are not built yet: they say so."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from tunesmith.cli.help import wants_help


def webui(words: Sequence[str]) -> int:
    """`tunesmith webui`."""
    if any(word in ("-h", "--help") for word in words):
        print("usage: tunesmith webui\n\nnot built yet: the web page that makes, starts and shows runs")
        return 0
    return _later("webui", "the web page", ())


def _later(command: str, what: str, words: Sequence[str]) -> int:
    if wants_help(command, words):
        return 0
    print(f"error: {what} is not built yet; tunesmith help lists what is", file=sys.stderr)
    return 2
