"""`tunesmith eval`: benchmarks."""

from __future__ import annotations

from collections.abc import Sequence

from tunesmith.cli.help import wants_help


def main(words: Sequence[str]) -> None:
    """Asks what `task` names."""
    if wants_help("eval", words):
        return
    from tunesmith.config.load import load_config

    config = load_config(words, "eval")
    from tunesmith.recipes.evaluate import run

    run(config)
