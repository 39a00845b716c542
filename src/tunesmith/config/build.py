"""Entries to a RunConfig: old names, unknown keys, `${...}`, types, unbuilt features, rules; all problems at once."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable, Mapping
from typing import Any

from tunesmith.config import gate, legacy, method_rules, rules
from tunesmith.config.coerce import MismatchError, coerce
from tunesmith.config.entries import Entry, is_null
from tunesmith.config.fault import Fault
from tunesmith.config.interpolate import Resolver
from tunesmith.config.schema import ALIASES, COMMANDS, KEYS, RunConfig
from tunesmith.config.suggest import did_you_mean, near_keys
from tunesmith.core import env
from tunesmith.core.errors import ConfigError, Problem
from tunesmith.core.log import get_logger

_log = get_logger(__name__)
_LINE = re.compile(r":(\d+)$")


@dataclasses.dataclass(frozen=True)
class Checks:
    """What is checked beyond single values.

    Attributes:
        rules: rules between keys.
        paths: whether named local files exist, and what `output_dir` holds.
        unbuilt: whether features that are not built yet are refused.
        environment: whether values may be read out of the environment; else `${oc.env:NAME}` is refused.
    """

    rules: bool = True
    paths: bool = True
    unbuilt: bool = True
    environment: bool = True


class _Values:
    """Typed values, their places, and what went wrong on the way."""

    def __init__(self, command: str, *, reads_environment: bool = True) -> None:
        self.command = command
        self.reads_environment = reads_environment
        self.values: dict[str, Any] = {}
        self.sources: dict[str, str] = {}
        self.problems: list[Problem] = []
        self.suspects: set[str] = set()

    def take(self, entries: Iterable[Entry]) -> None:
        """Types every entry; a later one for the same key wins."""
        latest = {entry.key: entry for entry in entries}
        raw = {name: entry.value for name, entry in latest.items()}
        resolver = Resolver(raw, reads_environment=self.reads_environment)
        for name, entry in latest.items():
            if name not in KEYS:
                self._unknown(entry)
                continue
            try:
                value = resolver.resolve(entry.value, (name,))
                if is_null(value) and not KEYS[name].nullable:
                    continue
                self.values[name] = coerce(KEYS[name], value)
            except MismatchError as error:
                self.suspects.add(name)
                self.problems.append(Problem(error.what, entry.where, error.fix))
                continue
            if entry.where:
                self.sources[name] = entry.where

    def _unknown(self, entry: Entry) -> None:
        if env.allows_extra_args():
            _log.warning("%sunknown key %s is ignored", f"{entry.where}: " if entry.where else "", entry.key)
            return
        near = near_keys(entry.key, legacy.NAMES)
        self.suspects.update(near)
        listed = f"tunesmith {self.command} -h lists the keys; ALLOW_EXTRA_ARGS=1 ignores unknown ones"
        fix = did_you_mean(near) or listed
        self.problems.append(Problem(f"unknown key {entry.key}", entry.where, fix))


def from_entries(
    entries: Iterable[Entry], command: str, origin: str, problems: Iterable[Problem] = (), checks: Checks | None = None
) -> RunConfig:
    """Makes the configuration.

    Args:
        entries: the settings; later ones win.
        command: the command it is for.
        origin: where a missing key is reported.
        problems: found before, reported along.
        checks: what is checked beyond single values; default: all.

    Raises:
        ConfigError: with every problem found.
    """
    renamed, warnings = legacy.rename([_today(entry) for entry in entries])
    for warning in warnings:
        _log.warning("%s", warning)
    checks = checks or Checks()
    typed = _Values(command, reads_environment=checks.environment)
    typed.take(renamed)
    config = _config(typed, command, origin)
    found = [*problems, *typed.problems]
    if checks.unbuilt:
        found += _problems(config, gate.faults(config), typed.suspects)
    if checks.rules:
        found += _problems(config, rules.faults(config, with_paths=checks.paths), typed.suspects)
    if found:
        raise ConfigError(sorted(found, key=_line))
    if config.unused:
        _log.debug("not used by %s: %s", command, ", ".join(config.unused))
    if checks.rules and command == "train" and config.do_train and (idle := method_rules.idle_keys(config)):
        _log.warning("finetuning_type %s does not use %s", config.finetuning_type, ", ".join(idle))
    return config


def from_mapping(mapping: Mapping[str, Any], command: str, *, with_rules: bool) -> RunConfig:
    """`RunConfig.from_dict`."""
    entries = [Entry(name, value) for name, value in mapping.items()]
    return from_entries(entries, command, "", checks=Checks(rules=with_rules, paths=with_rules))


def changed(config: RunConfig, changes: Mapping[str, Any]) -> RunConfig:
    """`RunConfig.replace`."""
    typed = _Values(config.command)
    typed.take(Entry(name, value) for name, value in changes.items())
    nulls = {name: KEYS[name].default for name in changes if name in KEYS and name not in typed.values}
    copy = dataclasses.replace(
        config,
        **(nulls | typed.values),
        explicit=config.explicit | frozenset(typed.values),
        sources={name: place for name, place in config.sources.items() if name not in changes},
    )
    found = [*typed.problems, *_problems(copy, gate.faults(copy), typed.suspects)]
    if found:
        raise ConfigError(found)
    return copy


def _today(entry: Entry) -> Entry:
    name = ALIASES.get(entry.key, entry.key)
    return entry if name == entry.key else Entry(name, entry.value, entry.where)


def _config(typed: _Values, command: str, origin: str) -> RunConfig:
    if command not in COMMANDS:
        raise ValueError(f"no command takes a configuration under the name {command!r}")
    values = dict(typed.values)
    if values.get("eval_strategy", "no") != "no":
        values.setdefault("do_eval", True)  # as transformers does
    return RunConfig(
        **values,
        command=command,
        explicit=frozenset(typed.values),
        sources=typed.sources,
        origin=origin,
        unused=tuple(name for name in typed.values if command not in KEYS[name].commands),
    )


def _problems(config: RunConfig, faults: Iterable[Fault], suspects: set[str]) -> list[Problem]:
    """Faults with their places; those of keys that are in trouble already say nothing new."""
    found = []
    for fault in faults:
        if suspects.isdisjoint(fault.keys):
            place = next((config.sources[name] for name in fault.keys if name in config.sources), config.origin)
            found.append(Problem(fault.what, place, fault.fix))
    return found


def _line(problem: Problem) -> float:
    match = _LINE.search(problem.where)
    return int(match[1]) if match else float("inf")
