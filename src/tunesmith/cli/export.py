"""`tunesmith export`: merge adapters and write the model out."""

from __future__ import annotations

from collections.abc import Sequence

from tunesmith.cli.help import wants_help


def main(words: Sequence[str]) -> None:
    """Writes `export_dir`."""
    if wants_help("export", words):
        return
    from tunesmith.config.load import load_config

    config = load_config(words, "export")
    from tunesmith.recipes.export import run

    run(config)
