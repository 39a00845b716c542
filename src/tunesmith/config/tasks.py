"""What `task` may say: a benchmark and its split, a YAML file, or a task of lm-evaluation-harness. Opens no file."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tunesmith.config.fault import Fault
from tunesmith.config.schema import RunConfig
from tunesmith.core.lazy import nearest

BENCHMARKS = {"mmlu": ("test", "validation"), "ceval": ("validation", "test"), "cmmlu": ("test",)}
"""Benchmark -> its splits, the usual one first."""
SPLITS = ("train", "validation", "test")
HARNESS = "lm_eval:"
_FILE_SUFFIXES = (".yaml", ".yml")


@dataclass(frozen=True, slots=True)
class TaskName:
    """What a task is called.

    Attributes:
        kind: benchmark, file or lm_eval.
        name: of the benchmark or of lm-evaluation-harness's tasks; the path of a file.
        split: of a benchmark; empty elsewhere.
    """

    kind: str
    name: str
    split: str = ""


def parse_task(task: str, split: str | None = None) -> TaskName:
    """Reads `mmlu_test`, `mmlu` beside a `split`, `path/to/task.yaml`, `lm_eval:NAME[,NAME]`.

    Args:
        task: the key `task`.
        split: the key `split`; the split in the task's name wins.
    """
    if task.startswith(HARNESS):
        return TaskName("lm_eval", task.removeprefix(HARNESS).strip())
    if task.lower().endswith(_FILE_SUFFIXES):
        return TaskName("file", task)
    name, _, last = task.rpartition("_")
    if name and last in SPLITS:
        return TaskName("benchmark", name, last)
    return TaskName("benchmark", task, split or BENCHMARKS.get(task, SPLITS[::-1])[0])


def task_is_named(config: RunConfig) -> Iterator[Fault]:
    """`eval` needs something to ask."""
    if not config.task and not config.forgetting:
        fix = "set task: mmlu_test, or the path of a task's YAML file, or lm_eval:NAME; or forgetting: true"
        yield Fault(("task",), "task is missing", fix)
    elif config.forgetting and not config.task and not (config.adapter_name_or_path or config.ref_model):
        what = "forgetting compares a tuned model with the one before, and only one is named"
        yield Fault(("forgetting",), what, "name the adapter, or the model before tuning: ref_model")
    elif config.task and config.forgetting:
        what = "forgetting and task exclude each other: they are two evaluations"
        yield Fault(("forgetting", "task"), what, "keep one")


def task_is_known(config: RunConfig) -> Iterator[Fault]:
    """A benchmark is one of ours, or a folder below `task_dir`; a file must be there."""
    if not config.task:
        return
    task = parse_task(config.task, config.split)
    if task.kind == "file" and not Path(task.name).expanduser().is_file():
        yield Fault(("task",), f"task: there is no file {task.name}")
    elif task.kind == "lm_eval" and not task.name:
        yield Fault(("task",), "task: lm_eval: is followed by no name", "write lm_eval:arc_easy, for example")
    elif task.kind == "benchmark":
        yield from _benchmark_faults(config, task)


def _benchmark_faults(config: RunConfig, task: TaskName) -> Iterator[Fault]:
    if (Path(config.task_dir).expanduser() / task.name).is_dir():
        return
    if task.name not in BENCHMARKS:
        near = nearest(task.name, BENCHMARKS)
        hint = f"did you mean {near}_{task.split}? " if near else ""
        known = ", ".join(f"{name}_{split}" for name, splits in BENCHMARKS.items() for split in splits)
        fix = f"{hint}{known}; a folder below task_dir; a path ending in .yaml; or lm_eval:NAME"
        yield Fault(("task",), f"task: {task.name} is no benchmark, and there is no {config.task_dir}/{task.name}", fix)
    elif task.split not in BENCHMARKS[task.name]:
        splits = " or ".join(BENCHMARKS[task.name])
        yield Fault(("task", "split"), f"task: {task.name} has no split {task.split}", f"take {splits}")
