"""`tunesmith chat`: talk to a model in the terminal."""

from __future__ import annotations

from collections.abc import Sequence

from tunesmith.cli.help import wants_help


def main(words: Sequence[str]) -> None:
    """Chats until the user leaves."""
    if wants_help("chat", words):
        return
    from tunesmith.config.load import load_config

    config = load_config(words, "chat")
    from tunesmith.recipes.chat import run

    run(config)
