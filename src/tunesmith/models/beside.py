"""Files that every save of an adapter takes along: what peft's own files do not say and a load must know."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any


def save_beside(model: Any, write: Callable[[Path], None]) -> None:
    """Makes each later `model.save_pretrained(folder)` call `write(folder)` as well.

    Args:
        model: a PeftModel.
        write: writes into the folder that holds the adapter's files already.
    """
    plain = model.save_pretrained

    def save_pretrained(folder: str, *args: Any, **kwargs: Any) -> None:
        plain(folder, *args, **kwargs)
        if kwargs.get("is_main_process", True):
            write(Path(folder))

    model.save_pretrained = save_pretrained
