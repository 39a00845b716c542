"""Refuses what is known but not built yet, so that no key is accepted and then does nothing."""

from __future__ import annotations

from collections.abc import Iterator

from tunesmith.config.fault import Fault
from tunesmith.config.schema import KEYS, RunConfig


def faults(config: RunConfig) -> Iterator[Fault]:
    """One fault for each key of this command that asks for something unbuilt."""
    for name, known in KEYS.items():
        value = getattr(config, name)
        if config.command not in known.commands or value == known.default:
            continue
        if name == "stage" and config.command == "data":
            continue  # reading and checking rows is built for every stage, training is not
        if known.not_yet:
            yield Fault((name,), f"{name} is not built yet: {known.not_yet}", "leave it out to go on without")
            continue
        for item in value if isinstance(value, tuple) else (value,):
            if isinstance(item, str) and item in known.not_yet_values:
                yield Fault((name,), f"{name}: {item} is not built yet: {known.not_yet_values[item]}")
