"""What a save of an adapter writes: its own weights, and beside them what a load must know and peft does not say."""

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


def save_adapter_only(model: Any) -> None:
    """Makes each later save write the adapter's weights and not the base's embedding.

    peft adds the whole embedding where the vocabulary grew or an embedding is adapted. New rows are in the adapter, and
    the others are the base's, grown again in the same way when the adapter is loaded.
    """
    plain = model.save_pretrained

    def save_pretrained(folder: str, *args: Any, **kwargs: Any) -> None:
        plain(folder, *args, **{"save_embedding_layers": False} | kwargs)

    model.save_pretrained = save_pretrained
