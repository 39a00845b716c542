"""The configured adapters on an engine that keeps them apart: each under its own name, and all of them together."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tunesmith.config.schema import RunConfig
    from tunesmith.inference.engine import Engine


def find_configured(config: RunConfig) -> dict[str, Path]:
    """Folders of `adapter_name_or_path`, by the names as written, in order."""
    from tunesmith.models.hub import resolve_adapter

    return {
        name: resolve_adapter(name, cache_dir=config.cache_dir, token=config.hf_hub_token)
        for name in config.adapter_name_or_path
    }


def can_stay_apart(found: Mapping[str, Path]) -> bool:
    """Whether no adapter needs the base to itself; several need to be sums of low-rank products, too."""
    from tunesmith.models.live_adapter import beyond_low_rank, obstacle, other_base, read_settings

    if any(map(other_base, found.values())):
        return False  # the base must be loaded as the adapter was trained
    settings = [read_settings(path) for path in found.values()]
    if any(map(obstacle, settings)):
        return False
    return len(settings) == 1 or not any(map(beyond_low_rank, settings))


def check_configured(found: Mapping[str, Path], base: Path, *, force: bool = False) -> None:
    """Holds each adapter against the base, and against the adapters before it.

    Args:
        found: names to folders.
        base: the base model's folder.
        force: what does not fit is taken with a warning.

    Raises:
        ModelError: one was trained on something else.
    """
    from tunesmith.models.provenance import check_provenance

    paths = list(found.values())
    for count, path in enumerate(paths):
        check_provenance(path, base, force=force, below=paths[:count])


def add_configured(engine: Engine, found: Mapping[str, Path]) -> tuple[str, dict[str, str | None]]:
    """Adds the configured adapters to an engine, checked already.

    An adapter that was trained on top of those before it answers with them, any other one alone over the base.

    Args:
        engine: over the bare base.
        found: names to folders.

    Returns:
        The engine's name for all of them together, which is what the configuration means; and its names for each.

    Raises:
        ModelError: one does not fit, or cannot be served this way.
    """
    from tunesmith.models.provenance import read_provenance

    names, paths = list(found), list(found.values())
    known: dict[str, str | None] = {}
    together = " + ".join(names)
    for count, (name, path) in enumerate(found.items(), start=1):
        stacked = (read_provenance(path) or {}).get("stacked_adapters")
        known[name] = " + ".join(names[:count]) if stacked else name
        _add(engine, known[name] or name, paths[:count] if stacked else [path])
    if together not in known.values():
        _add(engine, together, paths)
    return together, known


def _add(engine: Engine, name: str, paths: Sequence[Path]) -> None:
    from tunesmith.models.sum_adapter import write_sum

    if len(paths) == 1:
        engine.add_adapter(name, paths[0])
        return
    with tempfile.TemporaryDirectory(prefix="tunesmith-") as folder:
        write_sum(paths, Path(folder) / "sum")
        engine.add_adapter(name, Path(folder) / "sum")
