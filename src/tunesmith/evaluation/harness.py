"""`task: lm_eval:NAME`: tasks of lm-evaluation-harness, asked of an engine. The only file that knows the package."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tunesmith.core.errors import TunesmithError
from tunesmith.core.lazy import nearest
from tunesmith.core.optional import require
from tunesmith.evaluation.harness_requests import HarnessAnswers

SAMPLE_COLUMNS = ("doc", "arguments", "target", "resps", "filtered_resps")


@dataclass(frozen=True, slots=True)
class HarnessSettings:
    """How tasks are put.

    Attributes:
        names: of tasks, groups or tags.
        folder: with task definitions of one's own (`NAME.yaml`); None: those of the package alone.
        n_shot: worked examples; None: as each task says.
        seed: of worked examples and of all that is drawn.
        chat: contexts are messages in the configured template; else plain text.
    """

    names: tuple[str, ...]
    folder: Path | None = None
    n_shot: int | None = None
    seed: int = 42
    chat: bool = False


def package_version() -> str:
    """Of lm-evaluation-harness.

    Raises:
        MissingPackageError: it is not installed.
    """
    from importlib.metadata import version

    require("lm_eval", "lm-eval", "task: lm_eval:NAME")
    return version("lm_eval")


def run_harness(answers: HarnessAnswers, settings: HarnessSettings) -> dict[str, Any]:
    """Runs tasks; returns what `lm_eval.simple_evaluate` gives, samples and all.

    Raises:
        MissingPackageError: the package is not installed.
        TunesmithError: a task that nobody knows, or that cannot be loaded.
    """
    require("lm_eval", "lm-eval", "task: lm_eval:NAME")
    from lm_eval.evaluator import simple_evaluate

    manager = _manager(settings)
    _load(manager, settings)
    found = simple_evaluate(
        _model(answers),
        tasks=list(settings.names),
        num_fewshot=settings.n_shot,
        task_manager=manager,
        apply_chat_template=settings.chat,
        random_seed=settings.seed,
        numpy_random_seed=settings.seed,
        torch_random_seed=settings.seed,
        fewshot_random_seed=settings.seed,
    )
    return dict(found or {})


def _manager(settings: HarnessSettings) -> Any:
    """Knows the tasks: those in the folder alone where they suffice, for reading all of the package's takes seconds."""
    from lm_eval.tasks import TaskManager

    if settings.folder is not None:
        own = TaskManager(include_path=str(settings.folder), include_defaults=False)
        if set(settings.names) <= set(own.all_tasks):
            return own
    manager = TaskManager(include_path=str(settings.folder) if settings.folder else None)
    for name in settings.names:
        if name not in manager.all_tasks:
            near = nearest(name, manager.all_tasks)
            hint = f"did you mean {near}?" if near else "lm_eval ls tasks lists them"
            raise TunesmithError(f"task: lm-evaluation-harness has no task {name}; {hint}")
    return manager


def _load(manager: Any, settings: HarnessSettings) -> None:
    """Loads tasks once before the model is asked: data sets that cannot be had are told as such."""
    try:
        loaded = manager.load(list(settings.names))
    except Exception as error:  # whatever a task's own code and the hub raise
        names = ", ".join(settings.names)
        raise TunesmithError(f"task: lm_eval:{names} cannot be loaded: {type(error).__name__}: {error}") from error
    manager.load = lambda _: loaded  # simple_evaluate would read all data again


def _model(answers: HarnessAnswers) -> Any:
    """The harness's model interface over the answers."""
    from lm_eval.api.model import LM

    class EngineModel(LM):  # type: ignore[misc, unused-ignore]
        """Hands every request on."""

        tokenizer_name = "tunesmith"

        def loglikelihood(self, requests: Sequence[Any]) -> list[tuple[float, bool]]:
            return answers.loglikelihood([request.args for request in requests])

        def loglikelihood_rolling(self, requests: Sequence[Any]) -> list[float]:
            return answers.loglikelihood_rolling([request.args for request in requests])

        def generate_until(self, requests: Sequence[Any]) -> list[str]:
            return answers.generate_until([request.args for request in requests])

        def apply_chat_template(
            self, chat_history: Sequence[Mapping[str, str]], add_generation_prompt: bool = True
        ) -> str:
            return answers.chat(chat_history, add_generation_prompt)

    return EngineModel()


def metrics_of(found: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Task or group -> metric -> value and standard error, out of the harness's results."""
    tables: dict[str, dict[str, Any]] = {}
    for task, values in {**found.get("results", {}), **found.get("groups", {})}.items():
        entries: dict[str, Any] = {}
        for name, value in values.items():
            metric, comma, chosen = name.partition(",")
            if not comma or not isinstance(value, int | float) or metric.endswith("_stderr"):
                continue
            label = metric if chosen in ("", "none") else f"{metric} ({chosen})"
            error = values.get(f"{metric}_stderr,{chosen}")
            entries[label] = {"value": value, "stderr": error if isinstance(error, int | float) else None}
        tables[task] = entries
    return tables


def sample_rows(found: Mapping[str, Any]) -> list[dict[str, Any]]:
    """A row a document: what was asked, what came, its scores."""
    rows = []
    for task, samples in found.get("samples", {}).items():
        for sample in samples:
            measured = {name: sample.get(name) for name in sample.get("metrics", ())}
            scores = {name: value for name, value in measured.items() if isinstance(value, int | float)}
            row = {"task": task, "index": sample["doc_id"], "filter": sample.get("filter", "none"), "scores": scores}
            rows.append(row | {name: sample.get(name) for name in SAMPLE_COLUMNS})
    return rows
