"""`tunesmith export`: merge adapters and write the model out."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path

from tunesmith.cli.help import wants_help
from tunesmith.cli.words import take_value


def main(words: Sequence[str]) -> None:
    """Writes `export_dir`; `--run FOLDER` notes the work there, as the queue has it done."""
    if wants_help("export", words):
        return
    from tunesmith.config.load import load_config
    from tunesmith.core.runs import Run

    rest = list(words)
    folder = take_value(rest, "--run")
    config = load_config(rest, "export")
    from tunesmith.recipes.export import run

    with Run(Path(folder)).working("export") if folder else nullcontext():
        run(config)
