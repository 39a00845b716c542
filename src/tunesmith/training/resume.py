"""Where a run starts: over, from its newest whole checkpoint, or from one that the user names."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from tunesmith.config.result import ADAPTER_TYPES
from tunesmith.config.schema import RunConfig
from tunesmith.core.errors import TrainingError
from tunesmith.core.log import get_logger
from tunesmith.core.runs import write_atomic
from tunesmith.models.adapters import count_parameters
from tunesmith.training.callbacks import TRAINER_LOG
from tunesmith.training.checkpoints import STAGING, check_space, list_checkpoints, newest_whole, resumable

logger = get_logger(__name__)


def choose_checkpoint(config: RunConfig) -> Path | None:
    """The checkpoint to go on from.

    `resume_from_checkpoint` names one (a path, or true for the newest); without it the newest whole checkpoint in
    output_dir is taken unless `overwrite_output_dir` says to start over.

    Raises:
        TrainingError: the named one cannot be resumed, or all in output_dir are torn.
    """
    output_dir = Path(config.output_dir or ".")
    named = config.resume_from_checkpoint
    if named and str(named).lower() not in ("true", "false"):
        return resumable(Path(str(named)))
    wants_newest = bool(named) and str(named).lower() == "true"
    if config.overwrite_output_dir and not wants_newest:
        return None
    if not list_checkpoints(output_dir):
        if wants_newest:
            raise TrainingError(f"resume_from_checkpoint: true, but {output_dir} holds no checkpoint")
        return None
    newest = newest_whole(output_dir)
    if newest is None:
        raise TrainingError(f"no checkpoint in {output_dir} is whole; set overwrite_output_dir: true to start over")
    return resumable(newest)


def start_over(config: RunConfig) -> None:
    """Clears what an earlier run left, so that nothing of it can be mistaken for this one's.

    Called when all else is ready: a run that cannot start costs nothing of the old one.
    """
    output_dir = Path(config.output_dir or ".")
    old = list_checkpoints(output_dir)
    if old:
        logger.info("overwrite_output_dir: deleting %d checkpoints of an earlier run in %s", len(old), output_dir)
    for folder in [*old, output_dir / STAGING]:
        shutil.rmtree(folder, ignore_errors=True)
    for name in (TRAINER_LOG, "all_results.json"):
        (output_dir / name).unlink(missing_ok=True)


def report_resume(checkpoint: Path, trainer: Any) -> int:
    """Says where the run goes on and cuts log lines of steps that will be done again.

    Returns:
        The last step that is done.
    """
    step = int(json.loads((checkpoint / "trainer_state.json").read_text(encoding="utf-8"))["global_step"])
    logger.info("resuming from %s at step %d", checkpoint, step)
    log = Path(trainer.args.output_dir) / TRAINER_LOG
    if log.is_file():
        lines = [line for line in log.read_text(encoding="utf-8").splitlines() if _step_of_line(line) <= step]
        write_atomic(log, "".join(line + "\n" for line in lines))
    return step


def _step_of_line(line: str) -> float:
    try:
        return float(json.loads(line)["current_steps"])
    except (ValueError, KeyError, TypeError):
        return float("inf")


def check_disk(config: RunConfig, trainer: Any) -> None:
    """Refuses before the first step when the checkpoints to come do not fit on the disk."""
    trained, total = count_parameters(trainer.model)
    weights = trained if config.finetuning_type in ADAPTER_TYPES else total
    each = 4 * weights + (0 if config.save_only_model else 8 * trained) + 2**24
    lasting = 0
    if config.save_strategy != "no":
        lasting = config.save_total_limit or 3  # more than three fit later or are deleted by the user
    check_space(Path(config.output_dir or "."), each, lasting + 1)
