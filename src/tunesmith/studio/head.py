"""What stands in a page's head: words, scripts and styles, once for all parts of it. Nothing is fetched for them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import cache
from typing import Any

import yaml

from tunesmith.config.explain import range_words, shown
from tunesmith.config.schema import GROUPS, KEYS, Key
from tunesmith.studio.form import LINES
from tunesmith.studio.web import text_of
from tunesmith.studio.words import LANGUAGES, say, table

_EVERYWHERE = ("words.js", "keep.js", "again.js")


def chat_head() -> str:
    """Of the page that is nothing but a chat."""
    return _head({"words": _words()}, _EVERYWHERE, ("again.css",))


def studio_head() -> str:
    """Of the studio: the keys once, whatever the number of forms; scripts and styles of its live parts."""
    return _head(_spec(), (*_EVERYWHERE, "charts.js", "form.js"), ("form.css", "live.css", "studio.css", "again.css"))


def _head(facts: dict[str, Any], scripts: Sequence[str], styles: Sequence[str]) -> str:
    known = json.dumps(facts, ensure_ascii=False).replace("</", "<\\/")
    script, style = ("\n".join(map(text_of, names)) for names in (scripts, styles))
    return f"<script>window.tunesmithKeys = {known};\n{script}</script>\n<style>{style}</style>"


@cache
def chinese_help() -> dict[str, str]:
    """Key -> what it does, in Chinese; `group TITLE` -> its title."""
    text = text_of("help_zh.yaml")
    return {str(name): str(words) for name, words in yaml.safe_load(text).items()}


def _spec() -> dict[str, Any]:
    groups = {
        group.TITLE: {"en": group.TITLE.replace("`", ""), "zh": chinese_help().get(f"group {group.TITLE}", group.TITLE)}
        for group in GROUPS
    }
    return {"keys": {name: _facts(known) for name, known in KEYS.items()}, "groups": groups, "words": _words()}


def _words() -> dict[str, dict[str, str]]:
    prefix = "form."
    return {key.removeprefix(prefix): _both(key) for key in table() if key.startswith(prefix)}


def _both(key: str) -> dict[str, str]:
    return {language: say(key, language) for language in LANGUAGES}


def _facts(known: Key) -> dict[str, Any]:
    label = f"label.{known.name}"
    return {
        "kind": _kind(known),
        "list": known.is_list,
        "choices": list(known.choices),
        "nullable": known.nullable,
        "shown": shown(known.default),
        "group": known.group,
        "secret": known.secret,
        "unbuilt": bool(known.not_yet),
        "later": sorted(known.not_yet_values),
        "help": {"en": _help(known, known.help, "en"), "zh": _help(known, chinese_help().get(known.name, ""), "zh")},
        "label": _both(label) if label in table() else None,
    }


def _help(known: Key, text: str, language: str) -> str:
    parts = [text or known.help]
    if known.choices and known.is_list:
        parts.append(", ".join(known.choices))
    if known.bounds:
        parts.append(f"({range_words(known)})")
    if known.not_yet:
        parts.append(say("form.unbuilt", language))
    if known.secret:
        parts.append(say("form.secret", language))
    return " ".join(parts).replace("`", "")


def _kind(known: Key) -> str:
    if known.is_bool or set(known.kinds) == {"bool"}:
        return "bool"
    if known.name in LINES:
        return "lines"
    if "dict[str, Any]" in known.kinds:
        return "dict"
    return "number" if set(known.kinds) <= {"int", "float"} else "text"
