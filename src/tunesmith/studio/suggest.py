"""What a form offers for a key: data sets, templates, models, adapters and metrics that are there."""

from __future__ import annotations

from pathlib import Path

from tunesmith.config.metrics import METRICS
from tunesmith.core.errors import TunesmithError
from tunesmith.data.catalog import DEFAULT_DIR, find_dataset_dir, read_info
from tunesmith.data.template import template_names
from tunesmith.studio.shell import run_folders
from tunesmith.studio.workspace import Workspace

_MOST = 300
_SKIPPED = ("node_modules", "__pycache__")
_DEPTH = 3


def suggestions(workspace: Workspace, dataset_dir: str = DEFAULT_DIR) -> dict[str, list[str]]:
    """Key -> what can stand there; other values are as good.

    Args:
        workspace: whose runs and folders are offered.
        dataset_dir: as the form says.
    """
    names = data_sets(workspace, dataset_dir)
    runs = run_folders(workspace)
    return {
        "model_name_or_path": ["smollm2-135m", *model_folders(workspace)][:_MOST],
        "adapter_name_or_path": [name for name in runs if _is_adapter(workspace.root / name)][:_MOST],
        "template": ["auto", *template_names()],
        "dataset": names,
        "eval_dataset": names,
        "metrics": sorted(METRICS),
        "eval_metrics": sorted(METRICS),
        "resume_from_checkpoint": [name for name in runs if "/checkpoint-" in name][:_MOST],
    }


def data_sets(workspace: Workspace, dataset_dir: str) -> list[str]:
    """Names in dataset_info.json; where the folder is not there, of the data sets that come with Tunesmith."""
    try:
        workspace.readable_path(dataset_dir)
        return sorted(read_info(find_dataset_dir(dataset_dir)))
    except TunesmithError:
        return []


def model_folders(workspace: Workspace) -> list[str]:
    """Folders of whole models in the workspace and beside it, not too deep."""
    found: list[str] = []
    for root in (workspace.root, *workspace.readable):
        found += [workspace.shown(path) for path in _models(root, _DEPTH)]
    return found


def _models(folder: Path, depth: int) -> list[Path]:
    try:
        inside = sorted(one for one in folder.iterdir() if one.is_dir() and not one.is_symlink())
    except OSError:
        return []
    found = []
    for one in inside:
        if one.name.startswith((".", "checkpoint-")) or one.name in _SKIPPED:
            continue
        if (one / "config.json").is_file() and any(one.glob("*.safetensors")):
            found.append(one)
        elif depth > 1:
            found += _models(one, depth - 1)
    return found


def _is_adapter(folder: Path) -> bool:
    return (folder / "adapter_config.json").is_file()
