"""What the tabs let users choose: models, templates, data sets, runs. No Gradio.

Paths start from the current folder, which is the workspace wherever a page is served.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from tunesmith.config.paths import has_weights
from tunesmith.core.errors import TunesmithError
from tunesmith.core.run_state import RunState, find_runs
from tunesmith.data.catalog import ONLINE, REMOTE, find_dataset_dir, read_info
from tunesmith.data.template import template_names
from tunesmith.recipes.trained import trained_keys
from tunesmith.studio.guard import guard_dataset_dir, guard_keys
from tunesmith.studio.workspace import Workspace

FIRST_MODEL = "smollm2-135m"
_MODEL_DEPTH = 3


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
