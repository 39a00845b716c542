"""Predictions, benchmarks and comparisons as the page asks for them. No Gradio here."""

from __future__ import annotations

import html
import time
from collections.abc import Mapping, Sequence
from typing import Any

from tunesmith.config.load import load_keys
from tunesmith.config.schema import RunConfig
from tunesmith.core.errors import TunesmithError
from tunesmith.evaluation.page import comparison_page
from tunesmith.recipes.compare import compare
from tunesmith.studio.choices import said
from tunesmith.studio.guard import guard_keys
from tunesmith.studio.markup import Html, page_part
from tunesmith.studio.workspace import Workspace

DATA_KEYS = (
    *("dataset_dir", "eval_dataset", "output_dir", "cutoff_len", "max_samples", "per_device_eval_batch_size"),
    *("max_new_tokens", "temperature", "top_p", "seed", "metrics"),
)
"""Fields of a prediction."""
TASK_KEYS = ("task", "save_dir", "n_shot", "lang", "batch_size", "task_dir")
"""Fields of a benchmark."""
_PREDICTION = {"stage": "sft", "do_predict": True, "predict_with_generate": True, "overwrite_output_dir": False}


def evaluation_config(
    workspace: Workspace, what: str, model: Mapping[str, Any], fields: Mapping[str, Any]
) -> RunConfig:
    """What is started.

    Args:
        workspace: guards paths.
        what: `data` predicts a data set, `task` asks a benchmark.
        model: keys of the model.
        fields: of the form, by key.

    Raises:
        TunesmithError: a path is outside, or the configuration cannot be used.
    """
    given = {name: fields[name] for name in (DATA_KEYS if what == "data" else TASK_KEYS) if name in fields}
    if what == "data":
        keys = {**model, **_PREDICTION, **said(given)}
        if not keys.get("eval_dataset"):
            raise TunesmithError("eval_dataset: choose the data set whose questions are answered")
    else:
        keys = {**model, **said(given)}
    guard_keys(workspace, keys)
    return load_keys(keys, "train" if what == "data" else "eval")


def new_folder(kind: str) -> str:
    """A folder for results that nobody has used: `saves/KIND/DATE-TIME`."""
    return f"saves/{kind}/{time.strftime('%Y-%m-%d-%H-%M-%S')}"


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
