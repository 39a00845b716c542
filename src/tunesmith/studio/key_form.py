"""The form of configuration keys on a page: one component, whatever the number of keys. What it holds is in form.py."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

import gradio as gr
import yaml

from tunesmith.config.explain import range_words, shown
from tunesmith.config.schema import GROUPS, KEYS, Key
from tunesmith.studio.form import LINES, Said
from tunesmith.studio.shell import PRIVATE, Studio, server_function
from tunesmith.studio.suggest import suggestions
from tunesmith.studio.web import text_of
from tunesmith.studio.words import LANGUAGES, say, table

Section = tuple[str, Sequence[str]]
"""Word of its title (`form.NAME` in the table), keys that stand in it."""


def key_form(studio: Studio, name: str, sections: Sequence[Section], said: Mapping[str, str]) -> gr.HTML:
    """A form of all keys where it is called: those of `sections` first, all others under Advanced with a search.

    Its value is what was set, key -> text (see `form.config_of`, `form.to_yaml`); as an output of an event the same
    fills it. The browser keeps what was typed over a reload.

    Args:
        studio: the page.
        name: of this form on the page; `#NAME-form [name=KEY]` is a field.
        sections: what stands open.
        said: what it begins with.
    """

    def suggest(asked: dict[str, Any]) -> dict[str, list[str]]:
        return suggestions(studio.workspace, str(asked.get("dataset_dir", "data"))[:1000])

    form = gr.HTML(
        dict(said),
        html_template='<div class="key-form"></div>',
        css_template="",
        js_on_load=text_of("form.js"),
        apply_default_css=False,
        elem_id=f"{name}-form",
        name=name,
        storage=f"{name}:{studio.workspace.root}",
        language="en",
        server_functions=[server_function(suggest)],
        sections=[{"title": title, "keys": list(keys)} for title, keys in sections],
    )
    studio.language.change(lambda language: gr.update(language=language), studio.language, form, **PRIVATE)
    return form


def page_head() -> str:
    """What the page's head needs: the keys once, whatever the number of forms; scripts and styles of its live parts."""
    keys = json.dumps(_spec(), ensure_ascii=False).replace("</", "<\\/")
    style = "\n".join(map(text_of, ("form.css", "live.css", "studio.css")))
    script = "\n".join(map(text_of, ("charts.js", "again.js")))
    return f"<script>window.tunesmithKeys = {keys};\n{script}</script>\n<style>{style}</style>"


def clean(value: Any) -> Said:
    """What a form sent, whoever sent it: texts only."""
    if not isinstance(value, dict):
        return {}
    return {str(name): str(text) for name, text in value.items() if text not in ("", None)}


@cache
def chinese_help() -> dict[str, str]:
    """Key -> what it does, in Chinese; `group TITLE` -> its title."""
    text = text_of("help_zh.yaml")
    return {str(name): str(words) for name, words in yaml.safe_load(text).items()}


def _spec() -> dict[str, Any]:
    groups = {
        group.TITLE: {"en": group.TITLE, "zh": chinese_help().get(f"group {group.TITLE}", group.TITLE)}
        for group in GROUPS
    }
    prefix = "form."
    words = {key.removeprefix(prefix): _both(key) for key in table() if key.startswith(prefix)}
    return {"keys": {name: _facts(known) for name, known in KEYS.items()}, "groups": groups, "words": words}


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
