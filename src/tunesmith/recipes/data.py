"""`tunesmith data check`: reads every row of a configuration's data, says what is in it, trains nothing."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from tunesmith.core.errors import DataError, Problem

if TYPE_CHECKING:
    from tunesmith.config.schema import RunConfig
    from tunesmith.data.checks.result import CheckResult
    from tunesmith.data.tokenize import Encoder

PICTURE = "data_check.png"


def check(config: RunConfig, png: str | None = None) -> CheckResult:
    """Reads and compares every row and draws the lengths.

    Args:
        config: for the command `data`.
        png: where the picture goes; without it into `output_dir` where that is set.

    Raises:
        DataError: a data set does not exist, cannot be read, or lacks what the stage needs. Bad rows are no error here:
            they are in the result's `problems`.
    """
    from tunesmith.data.checks.collect import check_data
    from tunesmith.data.checks.lengths import plot_lengths

    require_names(config)
    result = check_data(config, load_encoder(config))
    path = Path(png) if png else Path(config.output_dir) / PICTURE if config.output_dir else None
    if path:
        sets = [(found.report.name, found.lengths) for found in result.datasets]
        try:
            drawn = plot_lengths(sets, result.cutoff_len, path.expanduser())
        except OSError as error:
            place = "--png" if png else "output_dir"
            raise DataError(
                [Problem(f"the picture cannot be written: {error}", place, "name another place")]
            ) from error
        result.picture = str(drawn) if drawn else None
    return result


def require_names(config: RunConfig) -> tuple[str, ...]:
    """The data sets that are named.

    Raises:
        DataError: none is.
    """
    names = (*config.dataset, *config.eval_dataset)
    if not names:
        raise DataError(
            [Problem("no data set is named", "dataset", "set dataset: a name in dataset_info.json, or a file")]
        )
    return names


def load_encoder(config: RunConfig) -> Encoder:
    """Tokenizer and template of the configured model."""
    from tunesmith.data.pipeline import make_encoder
    from tunesmith.models.tokenizer import load_template_for, load_tokenizer

    tokenizer = load_tokenizer(config)
    return make_encoder(config, tokenizer, load_template_for(config, tokenizer))
