"""A task of the user's own: its YAML file, read and checked. Reads no rows; task_rows.py does."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tunesmith.config.metrics import functions_exist, metrics_are_known, options_fit, split_function
from tunesmith.config.schema import RunConfig
from tunesmith.core.errors import ConfigError, DataError, Problem
from tunesmith.core.lazy import nearest

KINDS = ("multiple_choice", "generation")
COLUMNS: dict[str, tuple[str, ...]] = {
    "multiple_choice": ("question", "choices", "answer", "subject", "category"),
    "generation": ("prompt", "references"),
}
_BOTH = {"name": str, "kind": str, "file": str, "examples": str, "columns": dict, "introduction": str}
_TYPES: dict[str, dict[str, Any]] = {
    "multiple_choice": {"title": str, "answer_by": str},
    "generation": {
        "prompt": str,
        "metrics": list,
        "metric_options": dict,
        "max_new_tokens": int,
        "do_sample": bool,
        "temperature": (int, float),
        "top_p": (int, float),
        "top_k": int,
        "stop": list,
    },
}
SETTINGS: dict[str, Any] = {"metrics": ["exact_match"], "do_sample": False, "max_new_tokens": 128}
"""What tasks take for keys that they do not set, where it differs from other commands."""
_MORE = ("metric_options", "temperature", "top_p", "top_k", "stop")
_WORDS = {str: "text", dict: "a mapping", list: "a list", int: "a whole number", bool: "true or false"}


@dataclass(frozen=True, slots=True)
class TaskFile:
    """A task as its file says.

    Attributes:
        path: of the YAML file.
        name: what results call it.
        kind: multiple_choice or generation.
        file: rows that are asked.
        settings: the keys of metrics and of generation, as set or as usual for tasks.
        examples: rows to draw worked examples from; None: there are none.
        columns: what a column holds -> its name, or names of the columns of choices.
        introduction: stands before the first message; None: the usual sentence, or nothing before a generation.
        title: what the usual sentence calls the questions.
        by_text: whole choices are compared, not letters.
        prompt: what is asked, with {columns} in braces; empty: the column of the prompt as it is.
    """

    path: Path
    name: str
    kind: str
    file: Path
    settings: RunConfig
    examples: Path | None = None
    columns: Mapping[str, Any] = field(default_factory=dict)
    introduction: str | None = None
    title: str = ""
    by_text: bool = False
    prompt: str = ""


def read_task(path: Path) -> TaskFile:
    """Reads a task.

    Raises:
        DataError: the file cannot be read, a key is not known or holds the wrong thing, or files are missing.
    """
    raw = _load(path)
    kind = _kind(raw, path)
    problems = list(_faults(raw, kind, path))
    if problems:
        raise DataError(problems)
    return TaskFile(
        path=path,
        name=str(raw.get("name", path.stem)),
        kind=kind,
        file=_beside(path, raw["file"]),
        settings=_settings(raw, path),
        examples=_beside(path, raw["examples"]) if raw.get("examples") else None,
        columns=raw.get("columns") or {},
        introduction=raw.get("introduction"),
        title=str(raw.get("title", raw.get("name", path.stem))).replace("_", " "),
        by_text=raw.get("answer_by") == "text",
        prompt=raw.get("prompt", ""),
    )


def _load(path: Path) -> dict[str, Any]:
    import yaml

    try:
        raw = yaml.safe_load(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise DataError([Problem(f"cannot be read: {error.strerror}", str(path))]) from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{path}:{mark.line + 1}" if mark else str(path)
        raise DataError([Problem(f"broken YAML: {getattr(error, 'problem', error)}", where)]) from error
    if not isinstance(raw, dict) or not raw.get("file"):
        fix = "for example file: questions.csv, with the columns question, A, B, C, D, answer"
        raise DataError([Problem("a task is a mapping of keys that names a file", str(path), fix)])
    return {str(name): value for name, value in raw.items()}


def _kind(raw: Mapping[str, Any], path: Path) -> str:
    """What is said, or what the other keys are for."""
    given = raw.get("kind")
    if given is None:
        columns = raw.get("columns")
        names = {*raw, *(columns if isinstance(columns, dict) else ())}
        is_generation = names & {*_TYPES["generation"], *COLUMNS["generation"]}
        return KINDS[1] if is_generation else KINDS[0]
    if given not in KINDS:
        raise DataError([Problem(f"kind cannot be {given!r}", str(path), f"one of: {', '.join(KINDS)}")])
    return str(given)


def _faults(raw: Mapping[str, Any], kind: str, path: Path) -> Iterator[Problem]:
    known: dict[str, Any] = _BOTH | _TYPES[kind]
    other = KINDS[1 - KINDS.index(kind)]
    where = str(path)
    for name, value in raw.items():
        if name in _TYPES[other] and name not in known:
            yield Problem(f"{name} is for kind {other}; this task is {kind}", where, "set kind, or leave it out")
        elif name not in known:
            near = nearest(name, known)
            yield Problem(f"unknown key {name}", where, f"did you mean {near}?" if near else ", ".join(known))
        elif not isinstance(value, known[name]) or (isinstance(value, bool) and known[name] is not bool):
            yield Problem(f"{name} takes {_WORDS.get(known[name], 'a number')}, not {value!r}", where)
    if raw.get("answer_by", "letter") not in ("letter", "text"):
        yield Problem(f"answer_by cannot be {raw['answer_by']!r}", where, "letter or text")
    columns = raw.get("columns")
    for name in columns if isinstance(columns, dict) else ():
        if name not in COLUMNS[kind]:
            yield Problem(f"columns: nothing is called {name}", where, f"a {kind} has {', '.join(COLUMNS[kind])}")
    for key in ("file", "examples"):
        named = raw.get(key)
        if isinstance(named, str) and not _beside(path, named).is_file():
            yield Problem(f"{key}: there is no file {_beside(path, named)}", where)


def _beside(path: Path, name: str) -> Path:
    """A file that the task names: beside the task, unless its path says otherwise."""
    return path.parent / Path(name).expanduser()


def _metric(path: Path, name: str) -> str:
    function = split_function(name)
    if function is None or not _beside(path, function[0]).is_file():
        return name
    return f"{_beside(path, function[0])}:{function[1]}"


def _settings(raw: Mapping[str, Any], path: Path) -> RunConfig:
    """Metrics and generation keys, under the rules that these keys have in a configuration."""
    keys = SETTINGS | {name: raw[name] for name in (*SETTINGS, *_MORE) if name in raw}
    keys["metrics"] = [_metric(path, str(name)) for name in keys["metrics"]]
    try:
        config = RunConfig.from_dict(keys, command="infer")
    except ConfigError as error:
        raise DataError([Problem(problem.what, str(path), problem.fix) for problem in error.problems]) from error
    faults = [fault for rule in (metrics_are_known, options_fit, functions_exist) for fault in rule(config)]
    if faults:
        raise DataError([Problem(fault.what, str(path), fault.fix) for fault in faults])
    return config
