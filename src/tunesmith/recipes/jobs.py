"""The kinds of work that can wait in the queue: which command does it, and in which directory it is noted."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tunesmith.config.schema import RunConfig
from tunesmith.core.errors import ConfigError, Problem, TrainingError
from tunesmith.core.lazy import nearest
from tunesmith.recipes.make import OUTPUT

EXPORTING = "-export"
"""The run directory of an export is a sibling of `export_dir`, which must not exist before the export is proven."""
RESOLVED_CONFIG = "training_args.yaml"


@dataclass(frozen=True, slots=True)
class Job:
    """A kind of work.

    Attributes:
        words: of `tunesmith`, before the configuration.
        folder_key: the key that names where its results go.
        folder: the run directory, out of a configuration for it.
        configs: files in it that hold the configuration it ran with, the best first.
        notes: the command is told the directory; else it finds it in the configuration.
    """

    words: tuple[str, ...]
    folder_key: str
    folder: Callable[[RunConfig], Path]
    configs: tuple[str, ...] = ()
    notes: bool = False

    def command_line(self, config: Path, folder: Path) -> list[str]:
        """The words that do it: of `tunesmith`, in the workspace."""
        return [*self.words, str(config.resolve()), *(["--run", str(folder.resolve())] if self.notes else [])]


def _output(config: RunConfig) -> Path:
    return Path(config.output_dir or ".")


def _made(config: RunConfig) -> Path:
    return Path(config.output_dir or OUTPUT)


def _answered(config: RunConfig) -> Path:
    if not config.save_dir:
        fix = "set it: a run that waits for the queue needs a folder"
        raise ConfigError([Problem("save_dir is missing", "save_dir", fix)])
    return Path(config.save_dir)


def export_run(config: RunConfig) -> Path:
    """Where an export is noted."""
    target = Path(config.export_dir or "export")
    return target.with_name(target.name + EXPORTING)


JOBS = {
    "train": Job(("train",), "output_dir", _output, (RESOLVED_CONFIG,)),
    "eval": Job(("eval",), "save_dir", _answered, ("eval_args.yaml",)),
    "data make": Job(("data", "make"), "output_dir", _made, ("make_args.yaml",)),
    "data dialogue": Job(("data", "dialogue"), "output_dir", _made, ("make_args.yaml",)),
    "export": Job(("export",), "export_dir", export_run, (), notes=True),
}
"""Command, as `config.load` knows it -> how it is done. A prediction is `train` with `do_predict` alone."""


def job_of(command: str) -> tuple[str, Job]:
    """The job behind what a run calls its command.

    Raises:
        TrainingError: no such work can be queued.
    """
    name = "train" if command == "predict" else command
    if name not in JOBS:
        near = nearest(name, list(JOBS))
        hint = f"did you mean {near}? " if near else ""
        raise TrainingError(f"{command} cannot wait in the queue: {hint}what can: {', '.join(JOBS)}")
    return name, JOBS[name]
