"""`tunesmith compare`: folders of runs in; a table, JSON, a page out."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tunesmith.config.build import Checks
from tunesmith.config.load import load_config
from tunesmith.config.schema import RunConfig
from tunesmith.core.errors import ConfigError, TunesmithError
from tunesmith.core.log import get_logger
from tunesmith.core.runs import write_atomic
from tunesmith.evaluation.compare import Comparison, compare_runs
from tunesmith.evaluation.page import comparison_page
from tunesmith.evaluation.run_scores import RunScores, read_run, short_names
from tunesmith.recipes.jobs import RESOLVED_CONFIG
from tunesmith.recipes.runs import differences

_CONFIGS = {RESOLVED_CONFIG: "train", "eval_args.yaml": "eval"}
_logger = get_logger(__name__)


def compare(folders: Sequence[str], *, seed: int = 0) -> tuple[list[RunScores], list[Comparison], dict[str, list[Any]]]:
    """Reads the runs and holds each against the first.

    Args:
        folders: two or more.
        seed: of the bootstrap.

    Returns:
        The runs, the comparisons of the metrics that they share, and the configuration keys in which they differ.

    Raises:
        TunesmithError: a folder without results, or fewer than two.
    """
    paths = [Path(folder).expanduser() for folder in folders]
    if len({path.resolve() for path in paths}) < max(2, len(paths)):
        raise TunesmithError("write tunesmith compare RUN_A RUN_B: two different folders or more")
    runs = [read_run(path, name) for path, name in zip(paths, short_names(paths), strict=True)]
    comparisons = compare_runs(runs, seed=seed)
    if not comparisons:
        kinds = "; ".join(f"{run.name}: {', '.join(run.samples) or 'none'}" for run in runs)
        _logger.warning("these runs share no scored samples, so no difference can be tested (%s)", kinds)
    configs = [_config(path) for path in paths]
    return runs, comparisons, differences(configs) if all(configs) else {}  # type: ignore[arg-type]


def _config(folder: Path) -> RunConfig | None:
    """The configuration beside the results, if there is one that can be read."""
    for name, command in _CONFIGS.items():
        if (folder / name).is_file():
            try:
                return load_config([str(folder / name)], command, Checks(rules=False, unbuilt=False))
            except ConfigError as error:
                _logger.warning("%s cannot be read, so no keys are compared: %s", folder / name, error)
    return None


def as_json(runs: Sequence[RunScores], comparisons: Sequence[Comparison], keys: dict[str, list[Any]]) -> dict[str, Any]:
    """The comparison as plain values."""
    return {
        "schema": 1,
        "runs": [{"name": run.name, "folder": str(run.folder), "results": run.results} for run in runs],
        "comparisons": [one.as_json() for one in comparisons],
        "keys": keys,
    }


def write_page(
    file: Path, runs: Sequence[RunScores], comparisons: Sequence[Comparison], keys: dict[str, list[Any]]
) -> None:
    """Writes the page.

    Raises:
        TunesmithError: the file cannot be written.
    """
    try:
        write_atomic(file, comparison_page(runs, comparisons, keys))
    except OSError as error:
        raise TunesmithError(f"cannot write {file}: {error.strerror}") from error
