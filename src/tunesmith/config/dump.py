"""A RunConfig as YAML that loads again to the same run."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import yaml

from tunesmith import __version__
from tunesmith.config.entries import NULL_WORDS
from tunesmith.config.schema import KEYS, RunConfig

_NO_WRAP = 1_000_000


class _QuotingDumper(yaml.SafeDumper):
    """Quotes all text: inside a mapping no key says that `1e-4` is meant as text."""


_QuotingDumper.add_representer(
    str, lambda dumper, text: dumper.represent_scalar("tag:yaml.org,2002:str", text, style='"')
)


def to_yaml(config: RunConfig) -> str:
    """What was set first, then the defaults that the command used; secrets by name only."""
    told = _told(config)
    silent = [name for name in KEYS if name not in told and _acts(config, name)]
    lines = [f"# tunesmith {__version__} {config.command}: the resolved configuration; it runs again as it is", ""]
    lines += ["### set", *_lines(config, told), "", "### defaults", *_lines(config, silent)]
    return "\n".join(lines) + "\n"


def set_to_yaml(config: RunConfig) -> str:
    """What was set alone, for who loads it as if the user had said it: some keys act otherwise when they are set."""
    head = f"# tunesmith {__version__} {config.command}: what was set"
    return "\n".join([head, "", *_lines(config, _told(config))]) + "\n"


def _told(config: RunConfig) -> list[str]:
    return [name for name in KEYS if name in config.explicit or getattr(config, name) != KEYS[name].default]


def _acts(config: RunConfig, name: str) -> bool:
    known = KEYS[name]
    is_empty = getattr(config, name) in (None, ())
    return config.command in known.commands and not known.not_yet and not is_empty


def _lines(config: RunConfig, names: Iterable[str]) -> Iterable[str]:
    for name in names:
        if KEYS[name].secret:
            yield f"# {name} is set; secrets are not written"
        else:
            yield f"{name}: {written(_escaped(getattr(config, name)))}"


def written(value: Any) -> str:
    """A value behind its key, in one line; a `${` in it is a reference."""
    if isinstance(value, tuple):
        value = list(value)
    if isinstance(value, str):
        if value in NULL_WORDS or value.lower() == "none" or not value.isprintable():
            text = quoted(value)
        else:
            text = yaml.safe_dump(value, allow_unicode=True, width=_NO_WRAP)
    else:
        dumper = _QuotingDumper if isinstance(value, dict) else yaml.SafeDumper
        text = yaml.dump(
            value, Dumper=dumper, default_flow_style=True, allow_unicode=True, width=_NO_WRAP, sort_keys=False
        )
    return str(text).removesuffix("...\n").strip()


def quoted(text: str) -> str:
    """A text between double quotes, in one line."""
    return str(yaml.safe_dump(text, default_style='"', allow_unicode=True, width=_NO_WRAP)).strip()


def _escaped(value: Any) -> Any:
    """In which a `${` stays one when it is read again."""
    if isinstance(value, str):
        return value.replace("${", "$${")
    if isinstance(value, dict):
        return {name: _escaped(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_escaped(item) for item in value]
    return value
