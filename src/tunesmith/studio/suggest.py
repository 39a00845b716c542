"""What a form offers for a key: data sets, templates, models, adapters and metrics that are there."""

from __future__ import annotations

from tunesmith.config.metrics import METRICS
from tunesmith.core.errors import TunesmithError
from tunesmith.data.catalog import DEFAULT_DIR
from tunesmith.studio.choices import dataset_names, model_names, template_choices
from tunesmith.studio.shell import run_folders
from tunesmith.studio.workspace import Workspace

_MOST = 300


def suggestions(workspace: Workspace, dataset_dir: str = DEFAULT_DIR) -> dict[str, list[str]]:
    """Key -> what can stand there; other values are as good.

    Args:
        workspace: whose runs and folders are offered.
        dataset_dir: as the form says.
    """
    try:
        names = dataset_names(workspace, dataset_dir)
    except TunesmithError:  # told when it is used
        names = []
    runs = run_folders(workspace)
    adapters = [name for name in runs if (workspace.root / name / "adapter_config.json").is_file()]
    return {
        "model_name_or_path": model_names(workspace)[:_MOST],
        "adapter_name_or_path": adapters[:_MOST],
        "template": template_choices(),
        "dataset": names,
        "eval_dataset": names,
        "metrics": sorted(METRICS),
        "eval_metrics": sorted(METRICS),
        "resume_from_checkpoint": [name for name in runs if "/checkpoint-" in name][:_MOST],
    }
