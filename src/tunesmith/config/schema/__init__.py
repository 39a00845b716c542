"""The keys of the configuration: one file a group, one frozen RunConfig of them all."""

from tunesmith.config.schema.key import COMMANDS, Group, Key
from tunesmith.config.schema.run import ALIASES, GROUPS, KEYS, RunConfig

__all__ = ["ALIASES", "COMMANDS", "GROUPS", "KEYS", "Group", "Key", "RunConfig"]
