"""A run once more, with changes or over lists of values, as the tab Runs asks for it. No Gradio here.

What is held against the workspace is the configuration that is queued, not the words that it was made of.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from tunesmith.core.errors import TunesmithError
from tunesmith.core.run_state import RunState
from tunesmith.recipes.jobs import job_of
from tunesmith.recipes.queue import enqueue_config
from tunesmith.recipes.runs import combinations, config_file
from tunesmith.studio.form import Said, config_of, read_yaml
from tunesmith.studio.workspace import Workspace


def clone_of(state: RunState, output: str, changes: Mapping[str, str], workspace: Workspace) -> Path:
    """Queues a run with the configuration of another and some changes, whatever its work is.

    Args:
        state: of the run to copy.
        output: folder of the new run; what it is called depends on the work (`output_dir`, `save_dir`, `export_dir`).
        changes: key -> text, as in the form.
        workspace: which no path may leave.

    Returns:
        The new run's directory.

    Raises:
        TunesmithError: no folder, a path outside, a secret, what the command would refuse.
    """
    if not output.strip():
        raise TunesmithError("the new run needs an output folder of its own")
    command, job = job_of(state.command)
    said = _said_of(state) | dict(changes) | {job.folder_key: output.strip()}
    return workspace.inside(enqueue_config(workspace.root, config_of(said, command, workspace)))


def sweep_of(
    state: RunState, output: str, changes: Mapping[str, str], choices: Mapping[str, Sequence[str]], workspace: Workspace
) -> list[Path]:
    """Queues a training for each combination of values, all of them or none.

    Args:
        state: of the run that is varied.
        output: each gets a folder of its own below it; default: beside the run.
        changes: key -> text, for all of them.
        choices: key -> its texts.
        workspace: which no path may leave.

    Raises:
        TunesmithError: as for `clone_of`, for any combination; the run is no training.
    """
    command, _ = job_of(state.command)
    if command != "train":
        raise TunesmithError(f"{workspace.shown(state.folder)} is no training ({state.command}): sweep over one")
    base = output.strip() or workspace.shown(state.folder) + "-sweep"
    forms = [
        _said_of(state) | dict(changes) | values | {"output_dir": f"{base}/{name}"}
        for name, values in combinations(choices)
    ]
    configs = [config_of(said, command, workspace) for said in forms]
    return [workspace.inside(enqueue_config(workspace.root, config)) for config in configs]


def _said_of(state: RunState) -> Said:
    """The run's configuration as a form, to begin anew."""
    command, _ = job_of(state.command)
    file = config_file(state.folder, command)
    said = read_yaml(file.read_text(encoding="utf-8"), file.name)
    return {name: text for name, text in said.items() if name != "resume_from_checkpoint"}
