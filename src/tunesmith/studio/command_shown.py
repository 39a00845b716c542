"""What a form is about to start, as a command line and as YAML. No Gradio here."""

from __future__ import annotations

import json
import shlex
from typing import Any

import yaml

from tunesmith.config.schema import KEYS, RunConfig
from tunesmith.recipes.jobs import job_of
from tunesmith.studio.markup import page_part, tag
from tunesmith.studio.words import say


def command_page(config: RunConfig, language: str = "en") -> str:
    """Both, to be copied; secrets stand in neither.

    Args:
        config: what would be queued.
        language: of the headings.
    """
    keys = set_keys(config)
    text = yaml.safe_dump(keys, allow_unicode=True, sort_keys=False, default_flow_style=None)
    parts = []
    for title, shown in (("command", command_line(config)), ("yaml", text)):
        parts += [tag("h3", say(f"command.{title}", language)), tag("div", shown, kind="ts-log", tabindex="0")]
    return page_part(*parts)


def command_line(config: RunConfig) -> str:
    """The same as words of a shell, quoted."""
    words = [f"{name}={_word(value)}" for name, value in set_keys(config).items()]
    return " \\\n  ".join([" ".join(["tunesmith", *job_of(config.command)[1].words]), *map(shlex.quote, words)])


def set_keys(config: RunConfig) -> dict[str, Any]:
    """What was set, as plain values."""
    found = {name: getattr(config, name) for name in KEYS if name in config.explicit and not KEYS[name].secret}
    return {name: list(value) if isinstance(value, tuple) else value for name, value in found.items()}


def _word(value: Any) -> str:
    if isinstance(value, list):
        return ",".join(map(str, value))
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
