"""`tunesmith infer`: answer a data set into a file."""

from __future__ import annotations

from collections.abc import Sequence

from tunesmith.cli.help import wants_help


def main(words: Sequence[str]) -> None:
    """Answers every row."""
    if wants_help("infer", words):
        return
    from tunesmith.config.load import load_config

    config = load_config(words, "infer")
    from tunesmith.recipes.infer import run

    run(config)
