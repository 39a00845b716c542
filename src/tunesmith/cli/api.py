"""`tunesmith api`: serve a model over HTTP, as OpenAI's clients speak it."""

from __future__ import annotations

from collections.abc import Sequence

from tunesmith.cli.help import wants_help


def main(words: Sequence[str]) -> None:
    """Serves until a signal."""
    if wants_help("api", words):
        return
    from tunesmith.config.load import load_config

    config = load_config(words, "api")
    from tunesmith.serving.app import run

    run(config)
