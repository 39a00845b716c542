"""What the tabs let users choose, and the guard before it is used: models, templates, data sets, folders. No Gradio.

Paths start from the current folder, which is the workspace wherever a page is served.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

from tunesmith.config.metrics import split_function
from tunesmith.config.paths import has_weights, looks_local
from tunesmith.core.errors import TunesmithError
from tunesmith.core.run_state import RunState, find_runs
from tunesmith.data.catalog import (
    DEFAULT_DIR,
    ONLINE,
    REMOTE,
    bundled_dir,
    find_dataset_dir,
    is_file_name,
    read_info,
    resolve,
)
from tunesmith.data.template import template_names
from tunesmith.recipes.trained import trained_keys
from tunesmith.studio.workspace import Workspace

FIRST_MODEL = "smollm2-135m"
_MODEL_DEPTH = 3
_WRITTEN = ("output_dir", "save_dir", "export_dir")
_READ = ("input_file_path", "chunks", "task_dir")
_ENVIRONMENT = re.compile(r"\$\{\s*(oc\.)?env\s*:")
_NAMED = ("model_name_or_path", "adapter_name_or_path", "chunk_tokenizer")


def model_names(workspace: Workspace) -> list[str]:
    """The model that is at hand first, then whole models in the workspace."""
    found = []
    folders = [workspace.root]
    for _ in range(_MODEL_DEPTH):
        folders = [inside for folder in folders for inside in sorted(folder.iterdir()) if _is_open(inside)]
        found += [workspace.shown(folder) for folder in folders if _is_model(folder)]
    return [FIRST_MODEL, *found]


def _is_open(folder: Path) -> bool:
    return folder.is_dir() and not folder.is_symlink() and not folder.name.startswith((".", "checkpoint-"))


def _is_model(folder: Path) -> bool:
    return (folder / "config.json").is_file() and has_weights(folder)


def template_choices() -> list[str]:
    """`auto` first."""
    return ["auto", *(name for name in template_names() if name != "auto")]


def dataset_names(workspace: Workspace, dataset_dir: str) -> list[str]:
    """The names in dataset_info.json of a folder; for the default folder those that come with Tunesmith.

    Raises:
        TunesmithError: the folder is outside, or has no such file, or it cannot be read.
    """
    guard_dataset_dir(workspace, dataset_dir)
    if dataset_dir == ONLINE or dataset_dir.startswith(REMOTE):
        return []
    return list(read_info(find_dataset_dir(dataset_dir)))


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
    for spec in resolve(tuple(names), dataset_dir):
        if spec.remote is None and not (bundled and spec.path.resolve().is_relative_to(bundled.resolve())):
            workspace.readable_path(spec.path)


def guard_keys(workspace: Workspace, keys: Mapping[str, Any]) -> None:
    """Every path among keys stays where it may be: results inside the workspace, what is read there or beside it.

    Raises:
        TunesmithError: one does not, or a value would be read out of the environment and then be shown.
    """
    for name, value in keys.items():
        if any(_ENVIRONMENT.search(text) for text in _several(value)):
            raise TunesmithError(f"{name}: the page reads no environment variables; write the value itself")
    for name in _WRITTEN:
        for path in _several(keys.get(name)):
            workspace.inside(path)
    _guard_models(workspace, keys)
    for path in _read(keys):
        workspace.readable_path(path)
    for metric in _several(keys.get("metrics")):
        function = split_function(metric)
        if function:
            workspace.inside(function[0])  # it is run: what others may read is not enough
    names = [*_several(keys.get("dataset")), *_several(keys.get("eval_dataset"))]
    if names:
        guard_datasets(workspace, str(keys.get("dataset_dir") or DEFAULT_DIR), names)


def _read(keys: Mapping[str, Any]) -> Iterator[str]:
    """Paths that are read."""
    for name in _READ:
        yield from _several(keys.get(name))
    task = str(keys.get("task") or "")
    if task.lower().endswith((".yaml", ".yml")):
        yield task


def _guard_models(workspace: Workspace, keys: Mapping[str, Any]) -> None:
    """Names of models that are paths, or could be."""
    for name in _NAMED:
        for model in _several(keys.get(name)):
            if looks_local(model) or (workspace.root / model).exists():
                workspace.readable_path(model)


def _several(value: Any) -> list[str]:
    if value is None or value == "":
        return []
    return [str(one) for one in value] if isinstance(value, list | tuple) else str(value).split(",")


def model_keys(workspace: Workspace, model: str | None, run: str | None, template: str | None) -> dict[str, Any]:
    """The model that is chosen: what a run or checkpoint has trained, else a model by its name.

    Args:
        workspace: guards paths.
        model: name or folder; does not count beside a run, which knows its base.
        run: folder of a run or checkpoint.
        template: counts where no run is chosen.

    Raises:
        TunesmithError: nothing is chosen, a path is outside, or the run has no weights.
    """
    if run:
        keys = trained_keys(workspace.readable_path(run))
        shown = [workspace.shown(Path(name)) if Path(name).exists() else name for name in keys["adapter_name_or_path"]]
        keys["adapter_name_or_path"] = shown
    elif model and model.strip():
        keys = {"model_name_or_path": model.strip()}
        if template:
            keys["template"] = template
    else:
        raise TunesmithError("no model is chosen: choose a run, or write the name or folder of a model")
    guard_keys(workspace, keys)
    return keys


def said(keys: Mapping[str, Any]) -> dict[str, Any]:
    """Keys whose fields say something; a field that was emptied leaves its key at the default."""
    return {name: value for name, value in keys.items() if value is not None and value != "" and value != []}


def jobs(workspace: Workspace, commands: Collection[str]) -> list[RunState]:
    """Runs of the workspace that do one of some commands, the newest first."""
    return [run for run in find_runs(workspace.root) if run.command in commands]
