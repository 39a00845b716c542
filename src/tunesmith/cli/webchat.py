"""`tunesmith webchat`: talk to a model in the browser."""

from __future__ import annotations

from collections.abc import Sequence

from tunesmith.cli.help import wants_help


def main(words: Sequence[str]) -> None:
    """Shows the page until a signal."""
    if wants_help("webchat", words):
        return
    from tunesmith.config.load import load_config

    config = load_config(words, "webchat")
    from tunesmith.studio.page import run_chat

    run_chat(config)
