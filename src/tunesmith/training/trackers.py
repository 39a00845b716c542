"""Experiment trackers of `report_to`: whether their packages are there, before any work is done for them."""

from __future__ import annotations

from collections.abc import Sequence

from tunesmith.core.optional import require

TRACKERS = {
    "tensorboard": "tensorboard",
    "wandb": "wandb",
    "mlflow": "mlflow",
    "swanlab": "swanlab",
    "trackio": "trackio",
}
"""Name in `report_to` -> import name, which is also the name of the extra; others are left to transformers."""


def check_trackers(names: Sequence[str]) -> None:
    """Refuses trackers whose package is missing, with the pip command.

    Raises:
        MissingPackageError: one is not installed.
    """
    for name in names:
        if name in TRACKERS:
            require(TRACKERS[name], extra=name, purpose=f"report_to: {name}")
