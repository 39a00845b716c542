"""`tunesmith version`."""

from __future__ import annotations

from collections.abc import Sequence

from tunesmith import __version__


def main(words: Sequence[str]) -> None:
    """Prints name and version in a box."""
    del words
    lines = (f"Tunesmith {__version__}", "fine-tune, export and serve language models from one file")
    width = max(map(len, lines))
    rule = f"+{'-' * (width + 2)}+"
    print("\n".join([rule, *(f"| {line:<{width}} |" for line in lines), rule]))
