"""The command line, or keys of a page, to a RunConfig: file, overrides, flags; `.env` where a command takes it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from tunesmith.config import dotenv
from tunesmith.config.argv import PLACE, CommandLine
from tunesmith.config.build import Checks, from_entries
from tunesmith.config.entries import Entry
from tunesmith.config.read import read_file
from tunesmith.config.schema import RunConfig
from tunesmith.core.errors import ConfigError


def load_config(argv: Sequence[str], command: str, checks: Checks | None = None) -> RunConfig:
    """Reads `[CONFIG] [key=value | --key value | --key=value | --switch | --no_switch]...`.

    Args:
        argv: the words after the command.
        command: the command that the configuration is for.
        checks: what is checked beyond single values; default: all.

    Raises:
        ConfigError: with every problem found.
    """
    line = CommandLine(argv)
    entries: list[Entry] = []
    problems = list(line.problems)
    if line.file:
        entries, faults = read_file(line.file)
        problems += faults
        if faults and not entries:
            raise ConfigError(problems)  # without the file every rule would complain
    checks = checks or Checks()
    if line.problems:
        checks = replace(checks, rules=False)  # words were lost: what is missing may be among them
    given = [*entries, *line.entries]
    return from_entries([*dotenv.entries(command, given), *given], command, line.file or PLACE, problems, checks)


def load_keys(keys: Mapping[str, Any], command: str, checks: Checks | None = None) -> RunConfig:
    """Keys and values as `load_config` would have them from a file, and what the environment says.

    Args:
        keys: YAML keys to Python values; numbers may be text.
        command: the command that the configuration is for.
        checks: what is checked beyond single values; default: all.

    Raises:
        ConfigError: with every problem found.
    """
    given = [Entry(name, value) for name, value in keys.items()]
    return from_entries([*dotenv.entries(command, given), *given], command, "", checks=checks)
