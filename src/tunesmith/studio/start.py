"""From a form to a queued run, and the files of configurations that users keep. No page and no Gradio here."""

from __future__ import annotations

import re
import shlex
import time
from collections.abc import Mapping
from pathlib import Path

from tunesmith.core.errors import TunesmithError
from tunesmith.core.run_state import read_state
from tunesmith.core.runs import write_atomic
from tunesmith.recipes.queue import enqueue_config
from tunesmith.recipes.runs import config_file
from tunesmith.studio.form import Said, config_of, read_yaml, to_yaml
from tunesmith.studio.workspace import Workspace

BOARD_CONFIG = "llamaboard_config.yaml"
"""In the output folder: the form that started the run, as users of LLaMA Board know it."""
FIRST: Said = {
    "do_train": "true",
    "stage": "sft",
    "finetuning_type": "lora",
    "template": "auto",
    "dataset_dir": "data",
    "cutoff_len": "2048",
    "learning_rate": "5e-05",
    "num_train_epochs": "3.0",
    "per_device_train_batch_size": "2",
    "gradient_accumulation_steps": "8",
    "lr_scheduler_type": "cosine",
    "logging_steps": "5",
    "save_steps": "100",
    "plot_loss": "true",
}
"""What the form of the tab Train begins with."""
_FILES = (".yaml", ".yml", ".json")
_NOT_A_NAME = re.compile(r"[^\w.-]+")


def with_output(said: Mapping[str, str], now: float | None = None) -> Said:
    """The form with an output folder where it names none: saves/MODEL/METHOD/train_TIME."""
    if said.get("output_dir"):
        return dict(said)
    model = _NOT_A_NAME.sub("-", Path(said.get("model_name_or_path", "model")).name).strip(".-") or "model"
    method = _NOT_A_NAME.sub("-", said.get("finetuning_type", "lora"))
    stamp = time.strftime("%Y-%m-%d-%H-%M-%S", time.localtime(now))
    return {**said, "output_dir": f"saves/{model}/{method}/train_{stamp}"}


def start(said: Mapping[str, str], workspace: Workspace) -> Path:
    """Queues what a form says; it begins at once where nothing is at work.

    Returns:
        The run's folder, absolute.

    Raises:
        TunesmithError: what `tunesmith train` would refuse, a path outside the workspace, a secret.
    """
    whole = with_output(said)
    folder = workspace.inside(enqueue_config(workspace.root, config_of(whole, "train", workspace)))
    write_atomic(folder / BOARD_CONFIG, to_yaml(whole))
    return folder


def command_of(said: Mapping[str, str], command: str = "train") -> str:
    """The command line that says the same, for a shell; values are quoted."""
    words = [f"{name}={text}" for name, text in said.items()]
    return " \\\n  ".join([f"tunesmith {command}", *map(shlex.quote, words)])


def save(said: Mapping[str, str], name: str, workspace: Workspace) -> Path:
    """Keeps a form as a YAML file.

    Raises:
        TunesmithError: the name is none for a configuration, or outside the workspace; a value is wrong.
    """
    path = workspace.inside(_named(name))
    write_atomic(path, to_yaml(said))
    return path


def load(name: str, workspace: Workspace) -> Said:
    """A configuration file as a form.

    Raises:
        TunesmithError: there is no such file in the workspace, or it is no configuration.
    """
    path = workspace.readable_path(_named(name))
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not UTF-8 text"
        raise TunesmithError(f"{name} cannot be read: {reason}") from error
    return read_yaml(text, name)


def of_run(name: str, workspace: Workspace) -> Said:
    """The form that started a run, or else its configuration.

    Raises:
        TunesmithError: no run is there, or it has no configuration.
    """
    folder = workspace.inside(name)
    if read_state(folder) is None:
        raise TunesmithError(f"there is no run in {name}")
    board = folder / BOARD_CONFIG
    path = board if board.is_file() else config_file(folder)
    return read_yaml(workspace.inside(path).read_text(encoding="utf-8"), workspace.shown(path))


def _named(name: str) -> str:
    text = name.strip()
    if not text.lower().endswith(_FILES):
        raise TunesmithError(f"{text[:80] or 'the name'}: a configuration file ends in {', '.join(_FILES)}")
    return text
