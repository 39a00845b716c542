"""`tunesmith expand`: add blocks to a model that leave its answers as they are (LLaMA Pro)."""

from __future__ import annotations

from collections.abc import Sequence

from tunesmith.cli.help import wants_help


def main(words: Sequence[str]) -> None:
    """Writes `output_dir`."""
    if wants_help("expand", words):
        return
    from tunesmith.config.load import load_config

    config = load_config(words, "expand")
    from tunesmith.recipes.expand import run

    run(config)
