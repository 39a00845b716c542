"""MMLU, C-Eval, CMMLU and benchmarks laid out like them: which subjects there are and where their questions are."""

from __future__ import annotations

from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunesmith.core.errors import DataError, Problem
from tunesmith.core.log import get_logger
from tunesmith.data.catalog import DatasetSpec, Remote
from tunesmith.data.hubs import fetch
from tunesmith.data.sources import read_dataset
from tunesmith.evaluation.folder import BenchmarkFolder, make_question
from tunesmith.evaluation.question import CATEGORIES, LETTERS, Question, Subject

if TYPE_CHECKING:
    from tunesmith.config.schema import RunConfig

HUBS = {
    "mmlu": ("cais/mmlu", {"train": "dev", "validation": "validation", "test": "test"}),
    "ceval": ("ceval/ceval-exam", {"train": "dev", "validation": "val", "test": "test"}),
    "cmmlu": ("haonan-li/cmmlu", {"train": "dev", "test": "test"}),
}
"""Benchmark -> data set of the hub, split -> what the split is called there."""
_logger = get_logger(__name__)


def known_subjects(name: str) -> dict[str, tuple[str, str]]:
    """Subject -> (title, category) of a benchmark that Tunesmith knows; empty for others."""
    import yaml

    file = resources.files("tunesmith.evaluation").joinpath("subjects", f"{name}.yaml")
    if not file.is_file():
        return {}
    categories: dict[str, dict[str, str]] = yaml.safe_load(file.read_text("utf-8"))
    return {subject: (title, category) for category, titles in categories.items() for subject, title in titles.items()}


def load_benchmark(config: RunConfig, name: str, split: str) -> list[Subject]:
    """All subjects of a benchmark: from `task_dir/NAME` if it is there, else from the hub.

    Raises:
        DataError: files that are missing or cannot be read.
    """
    folder = Path(config.task_dir).expanduser() / name
    if folder.is_dir():
        return _from_folder(folder, name, split)
    return [_from_hub(config, name, split, subject, about) for subject, about in known_subjects(name).items()]


def _from_folder(folder: Path, name: str, split: str) -> list[Subject]:
    files = BenchmarkFolder.open(folder)
    there = files.names(split)
    about = files.subjects() or known_subjects(name)
    wanted = {subject: about[subject] for subject in about if subject in there}
    if not about:
        wanted = {subject: (subject.replace("_", " "), CATEGORIES[-1]) for subject in there}
    if not wanted:
        fix = f"subjects with files there: {', '.join(there) or 'none'}; in mapping.json: {', '.join(about) or 'none'}"
        raise DataError([Problem(f"no subject has questions of the split {split}", str(folder), fix)])
    if len(wanted) < len(about):
        _logger.warning("%s holds %d of %d subjects; only these are asked", folder, len(wanted), len(about))
    return [
        Subject(subject, title, category, files.questions(subject, "train"), files.questions(subject, split))
        for subject, (title, category) in wanted.items()
    ]


def _from_hub(config: RunConfig, name: str, split: str, subject: str, about: tuple[str, str]) -> Subject:
    repo, splits = HUBS[name]

    def read(which: str) -> tuple[Question, ...]:
        remote = Remote("hf", repo, subject, download_mode=config.download_mode)
        spec = DatasetSpec(f"{name}/{subject}", Path(repo), split=splits[which], remote=remote)
        try:
            rows = list(read_dataset(fetch(spec, {"hf": config.hf_hub_token}, config.cache_dir)))
        except DataError as error:
            fix = f"or put the benchmark into {Path(config.task_dir) / name} ({name}.zip and mapping.json)"
            raise DataError([*error.problems, Problem(f"{name} cannot be loaded from the hub", "task", fix)]) from error
        return tuple(_hub_question(row.value or {}, str(row.source)) for row in rows)

    title, category = about
    return Subject(subject, title, category, read("train"), read(split))


def _hub_question(row: dict[str, Any], where: str) -> Question:
    """A row with columns as in the CSV files, or with a list of `choices` and the number of the answer."""
    columns = {str(key).lower(): value for key, value in row.items()}
    if "choices" in columns:
        columns |= dict(zip(LETTERS.lower(), columns["choices"], strict=False))
        answer = columns.get("answer")
        columns["answer"] = LETTERS[answer] if isinstance(answer, int) and answer >= 0 else ""
    try:
        return make_question({key: "" if value is None else str(value) for key, value in columns.items()})
    except ValueError as error:
        raise DataError([Problem(str(error), where)]) from error
