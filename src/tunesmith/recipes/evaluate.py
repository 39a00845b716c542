"""`tunesmith eval`: questions in, answers and scores out."""

from __future__ import annotations

import sys
import time
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunesmith.config.tasks import TaskName, parse_task
from tunesmith.core import log
from tunesmith.core.errors import DataError, Problem
from tunesmith.core.runs import Run, write_atomic, write_json

if TYPE_CHECKING:
    from tunesmith.config.schema import RunConfig
    from tunesmith.evaluation.choices import ChoiceSettings
    from tunesmith.evaluation.question import Subject

_logger = log.get_logger(__name__)


def run(config: RunConfig) -> None:
    """Asks what `task` names, prints the scores and writes them to `save_dir`.

    Raises:
        TunesmithError: the model or the questions cannot be had, or `save_dir` holds other results.
    """
    folder = Path(config.save_dir).expanduser() if config.save_dir else None
    with Run(folder).working("eval") if folder else nullcontext():
        facts = _evaluate(config, folder)
        if folder is None:
            _logger.info("set save_dir to keep the answers")
            return
        write_atomic(folder / "eval_args.yaml", config.to_yaml())
        Run(folder).emit("evaluated", task=config.task or "forgetting", **facts)
        _logger.info("results: %s", folder)


def _evaluate(config: RunConfig, folder: Path | None) -> dict[str, Any]:
    if config.forgetting:
        from tunesmith.recipes.forgetting import forgetting

        return forgetting(config, folder)
    task = parse_task(config.task or "", config.split)
    if config.split and task.split != config.split:
        _logger.warning("split: %s is ignored: the task is called %s", config.split, config.task)
    return {"benchmark": benchmark, "file": own_task, "lm_eval": harness}[task.kind](config, task, folder)


def benchmark(config: RunConfig, task: TaskName, folder: Path | None) -> dict[str, Any]:
    """MMLU and its like."""
    from tunesmith.evaluation.benchmarks import load_benchmark
    from tunesmith.evaluation.choices import ChoiceSettings

    subjects = load_benchmark(config, task.name, task.split)
    return choices(config, task, subjects, ChoiceSettings(config.lang, config.n_shot, config.seed), folder)


def own_task(config: RunConfig, task: TaskName, folder: Path | None) -> dict[str, Any]:
    """A task in a YAML file: multiple choice, or prompts to answer."""
    from tunesmith.evaluation.choices import ChoiceSettings
    from tunesmith.evaluation.task_file import read_task
    from tunesmith.evaluation.task_rows import read_subjects
    from tunesmith.recipes import own_task as generation

    own = read_task(Path(task.name).expanduser())
    if "n_shot" in config.explicit and config.n_shot and own.examples is None:
        what = f"n_shot is {config.n_shot}, but the task names no examples"
        raise DataError([Problem(what, str(own.path), "name a file of worked examples: examples: worked.csv")])
    if own.kind == "multiple_choice":
        settings = ChoiceSettings(config.lang, config.n_shot, config.seed, own.by_text, own.introduction)
        return choices(config, TaskName("file", own.name), read_subjects(own), settings, folder)
    started = time.monotonic()
    found = generation.generate(config, own, folder)
    sys.stdout.write("\n".join(generation.table_lines(found)) + "\n")
    if folder is not None:
        facts = about(
            config, TaskName("file", own.name), next(iter(found.values()))["rows"], time.monotonic() - started
        )
        write_json(folder / "summary.json", {**facts, "metrics": found})
    return {name: entry["value"] for name, entry in found.items()}


def harness(config: RunConfig, task: TaskName, folder: Path | None) -> dict[str, Any]:
    """Tasks of lm-evaluation-harness."""
    from tunesmith.recipes.harness import run_tasks

    started = time.monotonic()
    found = run_tasks(config, task, folder)
    if folder is not None:
        facts = about(config, task, found["questions"], time.monotonic() - started)
        write_json(folder / "summary.json", {**facts, "n_shot": found["n_shot"], "metrics": found["metrics"]})
    return {"metrics": found["metrics"]}


def choices(
    config: RunConfig, task: TaskName, subjects: list[Subject], settings: ChoiceSettings, folder: Path | None
) -> dict[str, Any]:
    """Asks multiple-choice questions; returns the accuracy over all of them, nothing where nobody knows it."""
    from tunesmith.evaluation.choices import ChoiceEvaluation
    from tunesmith.evaluation.results import accuracy_of, table_lines, write_results
    from tunesmith.inference.opening import open_model
    from tunesmith.models.provenance import weights_digest

    opened = open_model(config, batch_size=config.batch_size)
    evaluation = ChoiceEvaluation(opened.engine, opened.form, settings, folder)
    started = time.monotonic()
    answers = evaluation.run(subjects, weights=weights_digest(opened.model))
    seconds = time.monotonic() - started
    sys.stdout.write("\n".join(table_lines(answers)) + "\n")
    average = accuracy_of(answers)
    if average is None:
        _logger.warning("the right answers of %s are not published: nothing can be scored", config.task)
    if folder is not None:
        write_results(folder, answers, about(config, task, len(answers), seconds))
    return average or {}


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
