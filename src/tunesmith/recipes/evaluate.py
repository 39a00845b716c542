"""`tunesmith eval`: questions in, answers and scores out."""

from __future__ import annotations

import sys
import time
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunesmith.config.tasks import TaskName, parse_task
from tunesmith.core import log
from tunesmith.core.runs import Run, write_atomic

if TYPE_CHECKING:
    from tunesmith.config.schema import RunConfig

_logger = log.get_logger(__name__)


def run(config: RunConfig) -> None:
    """Asks what `task` names, prints the scores and writes them to `save_dir`.

    Raises:
        TunesmithError: the model or the questions cannot be had, or `save_dir` holds other results.
    """
    task = parse_task(config.task or "", config.split)
    if config.split and task.split != config.split:
        _logger.warning("split: %s is ignored: the task is called %s", config.split, config.task)
    folder = Path(config.save_dir).expanduser() if config.save_dir else None
    with Run(folder).working("eval") if folder else nullcontext():
        choices(config, task, folder)


def choices(config: RunConfig, task: TaskName, folder: Path | None) -> None:
    """A benchmark of multiple-choice questions."""
    from tunesmith.evaluation.benchmarks import load_benchmark
    from tunesmith.evaluation.choices import ChoiceEvaluation, ChoiceSettings
    from tunesmith.evaluation.results import accuracy_of, table_lines, write_results
    from tunesmith.inference.opening import open_model
    from tunesmith.models.provenance import weights_digest

    subjects = load_benchmark(config, task.name, task.split)
    opened = open_model(config, batch_size=config.batch_size)
    settings = ChoiceSettings(config.lang, config.n_shot, config.seed)
    evaluation = ChoiceEvaluation(opened.engine, opened.form, settings, folder)
    started = time.monotonic()
    answers = evaluation.run(subjects, weights=weights_digest(opened.model))
    seconds = time.monotonic() - started
    sys.stdout.write("\n".join(table_lines(answers)) + "\n")
    average = accuracy_of(answers)
    if average is None:
        _logger.warning("the right answers of %s_%s are not published: nothing can be scored", task.name, task.split)
    if folder is None:
        _logger.info("set save_dir to keep the answers")
        return
    write_results(folder, answers, about(config, task, len(answers), seconds))
    write_atomic(folder / "eval_args.yaml", config.to_yaml())
    Run(folder).emit("evaluated", task=config.task, **(average or {}))
    _logger.info("results: %s", folder)


def about(config: RunConfig, task: TaskName, n_questions: int, seconds: float) -> dict[str, Any]:
    """What was asked, of which model, and how."""
    return {
        "task": task.name,
        "split": task.split,
        "model": config.model_name_or_path,
        "adapters": list(config.adapter_name_or_path),
        "template": config.template,
        "lang": config.lang,
        "n_shot": config.n_shot,
        "seed": config.seed,
        "questions": n_questions,
        "seconds": round(seconds, 2),
    }
