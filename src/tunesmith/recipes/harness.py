"""`task: lm_eval:NAME`: tasks of lm-evaluation-harness answered by our engine, and their results as files."""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunesmith.config.tasks import TaskName
from tunesmith.core.journal import Journal, row_line
from tunesmith.core.runs import Run, write_atomic, write_json
from tunesmith.evaluation.harness import HarnessSettings, metrics_of, package_version, run_harness, sample_rows
from tunesmith.evaluation.harness_requests import HarnessAnswers
from tunesmith.evaluation.results import write_parquet

if TYPE_CHECKING:
    from tunesmith.config.schema import RunConfig

REQUESTS_FILE = "requests.jsonl"
PLAIN = ("fewshot", "empty")
"""Templates under which the harness's texts are read as they are."""


def run_tasks(config: RunConfig, task: TaskName, folder: Path | None) -> dict[str, Any]:
    """Runs the tasks, prints their scores, writes results and samples.

    Args:
        config: model, template, `task_dir`, `seed`, and `n_shot` where it is set.
        task: names with commas between them.
        folder: `save_dir`; takes every answer as it comes, so that a killed run goes on.

    Returns:
        `metrics` by task, the number of `questions`, and `n_shot` by task.

    Raises:
        TunesmithError: the package, a task or the model cannot be had, or the folder holds other results.
    """
    from tunesmith.inference.opening import open_model
    from tunesmith.models.provenance import weights_digest

    version = package_version()
    own = Path(config.task_dir).expanduser()
    settings = HarnessSettings(
        names=tuple(name.strip() for name in task.name.split(",") if name.strip()),
        folder=own if own.is_dir() else None,
        n_shot=config.n_shot if "n_shot" in config.explicit else None,
        seed=config.seed,
        chat=config.template not in (None, *PLAIN),
    )
    opened = open_model(config, batch_size=config.batch_size)
    answers = HarnessAnswers(opened.engine, opened.form, {}, run=Run(folder) if folder else None)
    if folder is None:
        found = run_harness(answers, settings)
    else:
        asked = (settings.names, settings.n_shot, settings.seed, config.template)
        identity = json.dumps([weights_digest(opened.model), version, asked])
        with closing(Journal(folder / REQUESTS_FILE, hashlib.sha256(identity.encode()).hexdigest())) as journal:
            answers.known = {row["key"]: row["answer"] for row in journal.begin(0)}
            answers.keep = journal.append
            found = run_harness(answers, settings)
    metrics, rows = metrics_of(found), sample_rows(found)
    sys.stdout.write("\n".join(table_lines(metrics)) + "\n")
    if folder is not None:
        _write(folder, found, metrics, rows)
    return {"metrics": metrics, "questions": len(rows), "n_shot": found.get("n-shot", {})}


def _write(folder: Path, found: Mapping[str, Any], metrics: Mapping[str, Any], rows: list[dict[str, Any]]) -> None:
    whole = {name: value for name, value in found.items() if name != "samples"}
    write_json(folder / "results.json", json.loads(json.dumps(whole, default=str)))
    write_atomic(folder / "results.log", "\n".join(table_lines(metrics)) + "\n")
    plain = [json.loads(json.dumps(row, default=str, ensure_ascii=False)) for row in rows]
    write_atomic(folder / "samples.jsonl", b"".join(map(row_line, plain)))
    flat = [{name: _cell(name, value) for name, value in row.items()} for row in plain]
    write_parquet(folder / "samples.parquet", flat)


def _cell(name: str, value: Any) -> Any:
    """What tasks fill differently as text: JSON, unless it is text already."""
    return value if name == "index" or isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def table_lines(metrics: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> list[str]:
    """A line a task and metric, with its standard error."""
    lines = []
    for task, entries in metrics.items():
        for name, entry in entries.items():
            spread = f" ± {entry['stderr']:.4f}" if entry["stderr"] is not None else ""
            lines.append(f"{task}, {name}: {entry['value']:.4f}{spread}")
    return lines
