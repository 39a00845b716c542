"""Adapters that come, change and go by name while an engine works: the bookkeeping, once for all engines that can."""

from __future__ import annotations

from pathlib import Path
from typing import Generic, TypeVar

from tunesmith.inference.stepped import SteppedEngine

Loaded = TypeVar("Loaded")
"""What an engine keeps of an adapter."""


class AdaptingEngine(SteppedEngine, Generic[Loaded]):
    """An engine with live adapters. What loading one is, and what becomes of one that left, is its own matter."""

    def __init__(self) -> None:
        self._adapters: dict[str, Loaded] = {}

    def _load(self, name: str, path: Path) -> Loaded:
        """Makes an adapter ready, under no name yet.

        Raises:
            ModelError: it cannot be served live; the message says what to do.
        """
        raise NotImplementedError

    def _left(self, adapter: Loaded) -> None:
        """No name stands for this adapter any more; requests under way may still need it."""
        raise NotImplementedError

    @property
    def adapter_names(self) -> tuple[str, ...]:
        """Live adapters, in the order they came."""
        return tuple(self._adapters)

    def add_adapter(self, name: str, path: Path) -> None:
        """Loads an adapter under a new name.

        Raises:
            ModelError: the name is taken, or the adapter cannot be served live; the message says what to do.
        """
        self._refuse_taken(name)
        self._adapters[name] = self._load(name, path)

    def replace_adapter(self, name: str, path: Path) -> None:
        """Loads new weights under a name in use: requests under way finish with the old, later ones see none of it."""
        self._refuse_unknown(name)
        old = self._adapters[name]
        self._adapters[name] = self._load(name, path)
        self._left(old)

    def remove_adapter(self, name: str) -> None:
        """Drops an adapter; requests under way finish with it."""
        self._refuse_unknown(name)
        self._left(self._adapters.pop(name))
