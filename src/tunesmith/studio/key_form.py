"""Forms of configuration keys on a page: one component each, whatever the number of keys. Their texts: form.py."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
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
    open_ones = {key for _, keys in sections for key in keys}
    others = {"": [key for key in KEYS if key not in open_ones]}
    return _form(studio, name, sections, said, others, storage=f"{name}:{studio.workspace.root}")


def advanced_form(studio: Studio, name: str, own: Mapping[str, Collection[str]]) -> gr.HTML:
    """The part Advanced of a tab: every key of its command that the tab has no control of its own for.

    Its value goes to `form.tab_config`. What was set is gone with a reload, as in the controls around it.

    Args:
        studio: the page.
        name: as for `key_form`.
        own: command -> keys that have controls; the first command counts until `for_command` says another.
    """
    others = {
        command: [key for key, known in KEYS.items() if command in known.commands and key not in owned]
        for command, owned in own.items()
    }
    return _form(studio, name, (), {}, others)


def for_command(command: str) -> Any:
    """Makes an `advanced_form` show the keys of another of its commands."""
    return gr.update(command=command)


def _form(
    studio: Studio,
    name: str,
    sections: Sequence[Section],
    said: Mapping[str, str],
    others: Mapping[str, Sequence[str]],
    storage: str = "",
) -> gr.HTML:
    def suggest(asked: dict[str, Any]) -> dict[str, list[str]]:
        return suggestions(studio.workspace, str(asked.get("dataset_dir", "data"))[:1000])

    form = gr.HTML(
        dict(said),
        html_template='<div class="key-form"></div>',
        css_template="",
        js_on_load="window.tunesmithForm(element, props, trigger, watch, server);",
        apply_default_css=False,
        elem_id=f"{name}-form",
        name=name,
        storage=storage,
        language="en",
        command=next(iter(others)),
        server_functions=[server_function(suggest)],
        sections=[{"title": title, "keys": list(keys)} for title, keys in sections],
        advanced={command: list(keys) for command, keys in others.items()},
    )
    studio.language.change(lambda language: gr.update(language=language), studio.language, form, **PRIVATE)
    return form


def page_head() -> str:
    """What the page's head needs: the keys once, whatever the number of forms; scripts and styles of its live parts."""
    keys = json.dumps(_spec(), ensure_ascii=False).replace("</", "<\\/")
    scripts = "\n".join(map(text_of, ("charts.js", "form.js", "again.js")))
    style = "\n".join(map(text_of, ("form.css", "live.css", "studio.css")))
    return f"<script>window.tunesmithKeys = {keys};\n{scripts}</script>\n<style>{style}</style>"


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
        group.TITLE: {"en": group.TITLE.replace("`", ""), "zh": chinese_help().get(f"group {group.TITLE}", group.TITLE)}
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
