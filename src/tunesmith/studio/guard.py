"""No value of a form names a file outside the workspace: every text that can be a path is held against it."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from pathlib import PurePosixPath, PureWindowsPath
from typing import Any

from tunesmith.core.errors import ConfigError, Problem, ProblemsError, TunesmithError
from tunesmith.data.catalog import DEFAULT_DIR, ONLINE, REMOTE, bundled_dir, is_file_name, resolve
from tunesmith.studio.workspace import Workspace

FREE_TEXT = frozenset(
    {
        "default_system",
        "row_system",
        "stop",
        "add_tokens",
        "add_special_tokens",
        "base_url",
        "swanlab_lark_webhook_url",
    }
)
"""Keys whose text is never opened as a file; all others are looked at."""
INSIDE = frozenset(
    {
        "output_dir",
        "export_dir",
        "save_dir",
        "save_name",
        "matrix_save_name",
        "tokenized_path",
        "logging_dir",
        "profiler_output_dir",
        "swanlab_logdir",
        "offload_folder",
        "cache_dir",
        "metrics",
        "eval_metrics",
        "reward_funcs",
    }
)
"""Keys that name what is written or run as code: in the workspace itself, not only where a page may read."""
_FILE_SCHEMES = ("file:", "local:")
_ENVIRONMENT = re.compile(r"\$\{\s*(oc\.)?env\s*:")


def reads_environment(text: str) -> bool:
    """Whether a value is taken out of the environment: a page would show and write what it holds."""
    return _ENVIRONMENT.search(text) is not None


def guard_keys(workspace: Workspace, keys: Mapping[str, Any]) -> None:
    """Refuses what leaves the workspace, and what is read out of the environment.

    Raises:
        ConfigError: all of it.
    """
    problems = faults_of(keys, workspace)
    if problems:
        raise ConfigError(problems)


def faults_of(values: Mapping[str, Any], workspace: Workspace) -> list[Problem]:
    """What is read out of the environment; without such, what leaves the workspace.

    Args:
        values: key -> value.
        workspace: which no path may leave.
    """
    problems = [
        Problem(f"{name}: the page reads no environment variables; write the value itself")
        for name, value in values.items()
        if any(reads_environment(text) for text in _texts(value))
    ]
    return problems or path_problems(values, workspace)


def path_problems(values: Mapping[str, Any], workspace: Workspace) -> list[Problem]:
    """What leaves the workspace.

    Args:
        values: key -> value.
        workspace: which no path may leave.
    """
    found = []
    for name, value in values.items():
        if name in FREE_TEXT:
            continue
        for text in _texts(value):
            try:
                _check(name, text, workspace)
            except TunesmithError as error:
                found.append(Problem(f"{name}: {error}"))
                break
    return found or _dataset_problems(values, workspace)


def _dataset_problems(values: Mapping[str, Any], workspace: Workspace) -> list[Problem]:
    """What entries of dataset_info.json name outside, and names that nobody knows."""
    names = [name for key in ("dataset", "eval_dataset") for name in _names(values.get(key))]
    try:
        guard_datasets(workspace, str(values.get("dataset_dir") or DEFAULT_DIR), names)
    except ProblemsError as error:
        return error.problems
    except TunesmithError as error:
        return [Problem(str(error))]
    return []


def _names(value: Any) -> list[str]:
    """Names of data sets, in a list or between commas."""
    several = value.split(",") if isinstance(value, str) else value or ()
    return [name for name in several if isinstance(name, str) and name]


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield str(value)
    elif isinstance(value, Mapping):
        for name, item in value.items():
            yield str(name)
            yield from _texts(item)
    elif isinstance(value, tuple | list):
        for item in value:
            yield from _texts(item)


def _check(name: str, text: str, workspace: Workspace) -> None:
    for part in {text, *text.split(","), text.partition(":")[0], text.rpartition(":")[0]}:
        plain = part.strip()
        if plain.lower().startswith(_FILE_SCHEMES):
            raise TunesmithError(f"{plain} names a file by an address; write its path")
        if not plain or "\n" in plain:
            continue
        if name in INSIDE:
            workspace.inside(plain)
        elif _leads_away(plain) or _is_there(plain, workspace):
            workspace.readable_path(plain)


def _leads_away(text: str) -> bool:
    is_absolute = text.startswith(("/", "~", "\\")) or bool(PureWindowsPath(text).drive)
    return is_absolute or ".." in PurePosixPath(text.replace("\\", "/")).parts


def _is_there(text: str, workspace: Workspace) -> bool:
    """Whether it is a name in the workspace: a link there may lead out."""
    try:
        return (workspace.root / text).exists() or (workspace.root / text).is_symlink()
    except (OSError, ValueError):
        return False


def guard_dataset_dir(workspace: Workspace, dataset_dir: str) -> None:
    """Refuses a folder outside.

    Raises:
        TunesmithError: it is.
    """
    if dataset_dir.rstrip("/\\") != DEFAULT_DIR and dataset_dir != ONLINE and not dataset_dir.startswith(REMOTE):
        workspace.readable_path(dataset_dir)


def guard_datasets(workspace: Workspace, dataset_dir: str, names: Collection[str]) -> None:
    """Refuses data sets whose files are outside, as a path or behind an entry of dataset_info.json.

    Raises:
        TunesmithError: one is, or is not known.
    """
    guard_dataset_dir(workspace, dataset_dir)
    for name in names:
        if is_file_name(name):  # before it is looked for: what is outside is not even found out to exist
            workspace.readable_path(name)
    bundled = bundled_dir()
    for spec in resolve(tuple(names), dataset_dir, quiet=True):
        if spec.remote is None and not (bundled and spec.path.resolve().is_relative_to(bundled.resolve())):
            workspace.readable_path(spec.path)
