"""Predictions, benchmarks and comparisons as the page asks for them. No Gradio here."""

from __future__ import annotations

import html
import time
from collections.abc import Mapping, Sequence
from typing import Any

from tunesmith.config.schema import RunConfig
from tunesmith.core.errors import TunesmithError
from tunesmith.evaluation.page import comparison_page
from tunesmith.recipes.compare import compare
from tunesmith.studio.choices import said
from tunesmith.studio.form import Said, tab_config
from tunesmith.studio.markup import Html, page_part
from tunesmith.studio.workspace import Workspace

DATA_KEYS = (
    *("dataset_dir", "eval_dataset", "output_dir", "cutoff_len", "max_samples", "per_device_eval_batch_size"),
    *("max_new_tokens", "temperature", "top_p", "seed", "metrics"),
)
"""Fields of a prediction."""
TASK_KEYS = ("task", "save_dir", "n_shot", "lang", "batch_size", "task_dir")
"""Fields of a benchmark."""
KINDS = {"data": ("train", DATA_KEYS), "task": ("eval", TASK_KEYS)}
"""What is asked -> the command behind it, its fields."""
_FOLDERS = {"data": ("output_dir", "predict"), "task": ("save_dir", "eval")}
_PREDICTION = {"stage": "sft", "do_predict": True, "predict_with_generate": True, "overwrite_output_dir": False}


def evaluation_config(
    workspace: Workspace, what: str, model: Mapping[str, Any], fields: Mapping[str, Any], more: Said | None = None
) -> RunConfig:
    """What is started.

    Args:
        workspace: guards paths.
        what: `data` predicts a data set, `task` asks a benchmark.
        model: keys of the model.
        fields: of the form, by key; without a folder for the results they come into a new one.
        more: what was set under Advanced.

    Raises:
        TunesmithError: a path is outside, or the configuration cannot be used.
    """
    command, names = KINDS[what]
    folder, kind = _FOLDERS[what]
    keys = {**model, folder: folder_name(kind), **said({name: fields[name] for name in names if name in fields})}
    if what == "data":
        keys = {**_PREDICTION, **keys}
        if not keys.get("eval_dataset"):
            raise TunesmithError("eval_dataset: choose the data set whose questions are answered")
    return tab_config(workspace, command, keys, more)


def folder_name(kind: str, name: str = "") -> str:
    """A folder for results: `saves/KIND/NAME`; the date and time are the name of one that nobody has used."""
    return f"saves/{kind}/{name or time.strftime('%Y-%m-%d-%H-%M-%S')}"


def compare_page(workspace: Workspace, folders: Sequence[str]) -> str:
    """The page of `tunesmith compare`, in a frame of its own that runs no script.

    Args:
        workspace: guards the folders.
        folders: of two runs or more; the first is what the others are held against.

    Raises:
        TunesmithError: fewer than two, or a folder without results.
    """
    paths = [workspace.shown(workspace.readable_path(folder)) for folder in folders if folder]
    page = html.escape(comparison_page(*compare(paths)), quote=True)
    return page_part(Html(f'<iframe sandbox="" srcdoc="{page}" title="tunesmith compare"></iframe>'))
