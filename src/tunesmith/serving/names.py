"""Which names clients may ask for: the configured model, its alias, its bare base, and live adapters."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any

from tunesmith.core.lazy import nearest
from tunesmith.serving.errors import ApiError, bad_request

BASE = "base"
"""The model without the configured adapter."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One name.

    Attributes:
        adapter: what the engine calls it; None: the model as it was loaded.
        root: the folder or hub name behind it.
        is_configured: it cannot be dropped.
        created: seconds since the epoch.
    """

    adapter: str | None
    root: str
    is_configured: bool = True
    created: int = field(default_factory=lambda: int(time.time()))


class ModelNames:
    """The names of one server.

    Args:
        model: `model_name_or_path`, as it is written; it stands for what the configuration serves, adapter and all.
        default: the engine's name for what the configuration serves; None: the model as it was loaded.
        adapters: names in `adapter_name_or_path` to the engine's. Where `default` is a name, the bare base can be
            asked for, too.
        alias: `API_MODEL_NAME`.
    """

    def __init__(
        self,
        model: str,
        *,
        default: str | None = None,
        adapters: Mapping[str, str | None] | None = None,
        alias: str | None = None,
    ) -> None:
        self.model = model
        self._entries = {model: Entry(default, model)}
        for name, adapter in (adapters or {}).items():
            self._entries.setdefault(name, Entry(adapter, name))
        if default is not None:
            self._entries.setdefault(BASE, Entry(None, model))
        if alias:
            self._entries.setdefault(alias, Entry(default, model))

    def resolve(self, name: str) -> str | None:
        """The engine's adapter for a name; None: the model as it was loaded.

        Raises:
            ApiError: 404, with the nearest name.
        """
        return self._get(name).adapter

    def _get(self, name: str) -> Entry:
        entry = self._entries.get(name)
        if entry is None:
            near = nearest(name, self._entries)
            hint = f"did you mean {near!r}?" if near else f"there are: {', '.join(map(repr, self._entries))}"
            raise ApiError(
                HTTPStatus.NOT_FOUND,
                f"the model {name[:200]!r} is not served here; {hint}",
                param="model",
                code="model_not_found",
            )
        return entry

    def is_taken(self, name: str) -> bool:
        """Whether a live adapter has the name.

        Raises:
            ApiError: the name belongs to the configuration.
        """
        entry = self._entries.get(name)
        if entry is not None and entry.is_configured:
            raise bad_request(f"name: {name!r} belongs to the configuration; take another name", "name")
        return entry is not None

    def add(self, name: str, root: str) -> dict[str, Any]:
        """Notes a live adapter; returns its entry in the list."""
        self._entries[name] = Entry(name, root, is_configured=False)
        return self.shown(name)

    def droppable(self, name: str) -> str:
        """The engine's name of an adapter that may be dropped.

        Raises:
            ApiError: it is not there, or belongs to the configuration.
        """
        entry = self._get(name)
        if entry.is_configured or entry.adapter is None:
            raise bad_request(f"{name!r} belongs to the configuration and stays", "name")
        return entry.adapter

    def drop(self, name: str) -> None:
        """Forgets a live adapter."""
        self._entries.pop(name, None)

    def shown(self, name: str) -> dict[str, Any]:
        """One entry as `GET /v1/models` shows it.

        Raises:
            ApiError: 404.
        """
        entry = self._get(name)
        return {
            "id": name,
            "object": "model",
            "created": entry.created,
            "owned_by": "tunesmith",
            "root": entry.root,
            "parent": None if entry.root == self.model else self.model,
        }

    def listed(self, *, live_only: bool = False) -> dict[str, Any]:
        """All names, or those of live adapters."""
        names = [name for name, entry in self._entries.items() if not (live_only and entry.is_configured)]
        return {"object": "list", "data": [self.shown(name) for name in names]}
