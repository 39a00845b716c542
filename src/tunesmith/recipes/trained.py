"""What a run or one of its checkpoints has trained, as the keys that chat with it, measure it or export it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tunesmith.config.paths import has_weights
from tunesmith.config.result import ADAPTER_TYPES, merged_before
from tunesmith.config.schema import KEYS
from tunesmith.core.errors import ModelError
from tunesmith.recipes.runs import load_resolved


def trained_keys(folder: Path) -> dict[str, Any]:
    """Model, adapters, template and whatever else the run set that answering obeys, too.

    Args:
        folder: a run directory, or a `checkpoint-N` in one.

    Raises:
        ModelError: it holds no weights; where there are checkpoints, they are named.
        TunesmithError: it is no run.
    """
    run = folder.parent if folder.name.startswith("checkpoint-") else folder
    config = load_resolved(run)
    if not has_weights(folder):
        inside = sorted(path.name for path in folder.glob("checkpoint-*") if has_weights(path))
        hint = f"it has {', '.join(inside)}: choose one of these" if inside else "was the training finished?"
        raise ModelError(f"{folder} holds no weights: {hint}")
    keys: dict[str, Any] = {
        name: list(value) if isinstance(value := getattr(config, name), tuple) else value
        for name, known in KEYS.items()
        if "chat" in known.commands and "train" in known.commands and config.asks_for(name) and not known.secret
    }
    if config.finetuning_type in ADAPTER_TYPES:
        keys["adapter_name_or_path"] = [*merged_before(config), str(folder)]
    else:
        keys |= {"model_name_or_path": str(folder), "adapter_name_or_path": []}
    return keys
