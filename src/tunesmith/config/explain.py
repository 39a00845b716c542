"""What one key does, in words: for `tunesmith explain KEY [CONFIG]`."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator

from tunesmith.config import legacy
from tunesmith.config.schema import ALIASES, KEYS, Key, RunConfig
from tunesmith.config.suggest import did_you_mean, folded, near_keys
from tunesmith.core.errors import ConfigError, Problem

_WIDTH = 100
_TYPES = {
    "str": "text",
    "int": "whole number",
    "float": "number",
    "bool": "true or false",
    "dict[str, Any]": "mapping",
    "tuple[str, ...]": "list, or text with ','",
    "tuple[float, ...]": "list of numbers, or text with ','",
}
_SIGNS = {"ge": ">=", "gt": ">", "le": "<=", "lt": "<"}


def explain(name: str, config: RunConfig | None = None) -> str:
    """Everything that is known about a key.

    Args:
        name: a key, one of its aliases, or an old name.
        config: where given, the value there and where it comes from are added.

    Raises:
        ConfigError: nobody knows the name.
    """
    word = folded(name)
    if word in legacy.NAMES:
        successor = next((key for key in KEYS if word in legacy.old_names_of(key)), None)
        if successor is None:
            return f"{word} is an old name and is ignored: {legacy.DROPPED.get(word, 'weights are always safetensors')}"
        return f"{word} is an old name of {successor}.\n\n{explain(successor, config)}"
    word = ALIASES.get(word, word)
    if word not in KEYS:
        near = did_you_mean(near_keys(name, legacy.NAMES)) or "tunesmith train -h lists all keys"
        raise ConfigError([Problem(f"unknown key {name}", fix=near)])
    return "\n".join([word, *_facts(KEYS[word]), *_effective(KEYS[word], config)])


def type_words(known: Key) -> str:
    """The type in words, such as `whole number or null`."""
    if known.choices and not known.is_list:
        words = ["one of the choices"]
    elif known.whole:
        words = ["list, or one text"]
    else:
        words = [_TYPES[kind] for kind in known.kinds]
    return " or ".join([*words, *(["null"] if known.nullable else [])])


def shown(value: object) -> str:
    """A value as it would be written in YAML."""
    if isinstance(value, tuple):
        return ", ".join(str(item) for item in value) if value else "none"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return f"{value:g}"
    return "null" if value is None else (str(value) if value != "" else '""')


def range_words(known: Key) -> str:
    """The bounds, such as `>= 0, < 1`; empty without any."""
    return ", ".join(f"{_SIGNS[name]} {bound:g}" for name, bound in known.bounds.items())


def _facts(known: Key) -> Iterator[str]:
    yield from _wrapped("", known.help)
    yield from _wrapped("group", known.group)
    yield from _wrapped("type", type_words(known))
    yield from _wrapped("default", shown(known.default))
    yield from _wrapped("choices", ", ".join(known.choices))
    yield from _wrapped("range", range_words(known))
    yield from _wrapped("used by", ", ".join(known.commands))
    yield from _wrapped("note", known.note)
    if known.not_yet:
        yield from _wrapped("not yet", f"{known.not_yet}; any value but the default is refused")
    for reason in dict.fromkeys(known.not_yet_values.values()):
        values = [value for value, why in known.not_yet_values.items() if why == reason]
        yield from _wrapped("not yet", f"{', '.join(values)}: {reason}")
    names = [*known.aliases, *legacy.old_names_of(known.name)]
    yield from _wrapped("also", f"{', '.join(names)} mean the same" if names else "")
    spellings = [f"{other} for {value}" for other, value in known.value_names.items()]
    yield from _wrapped("also", ", ".join(spellings))


def _effective(known: Key, config: RunConfig | None) -> Iterator[str]:
    if config is None:
        return
    value = "(set, not shown)" if known.secret and known.name in config.explicit else shown(getattr(config, known.name))
    if known.name in config.explicit:
        origin = config.sources.get(known.name, "set")
    else:
        origin = "the default" if getattr(config, known.name) == known.default else "follows from other keys"
    yield from _wrapped("here", f"{value}  ({origin})")


def _wrapped(label: str, text: str) -> list[str]:
    if not text:
        return []
    head = f"  {label + ':' if label else '':<10}" if label else "  "
    return textwrap.wrap(text, _WIDTH, initial_indent=head, subsequent_indent=" " * len(head), break_on_hyphens=False)
