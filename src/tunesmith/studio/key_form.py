"""Forms of configuration keys on a page: one component each, whatever the number of keys. Their texts: form.py."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import gradio as gr

from tunesmith.config.schema import KEYS
from tunesmith.studio.form import Said
from tunesmith.studio.shell import Studio, server_function
from tunesmith.studio.suggest import suggestions

Section = tuple[str, Sequence[str]]
"""Word of its title (`form.NAME` in the table), keys that stand in it."""


def key_form(studio: Studio, name: str, sections: Sequence[Section], said: Mapping[str, str]) -> gr.HTML:
    """A form of all keys where it is called: those of `sections` first, all others under Advanced with a search.

    Its value is what was set, key -> text (see `form.config_of`, `form.to_yaml`); as an output of an event the same
    fills it.

    Args:
        studio: the page.
        name: of this form on the page; `#NAME-form [name=KEY]` is a field.
        sections: what stands open.
        said: what it begins with.
    """
    open_ones = {key for _, keys in sections for key in keys}
    others = {"": [key for key in KEYS if key not in open_ones]}
    return _form(studio, name, sections, said, others)


def advanced_form(studio: Studio, name: str, own: Mapping[str, Collection[str]]) -> gr.HTML:
    """The part Advanced of a tab: every key of its command that the tab has no control of its own for.

    Its value goes to `form.tab_config`.

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


def for_command(form: gr.HTML, command: str) -> Any:
    """Makes an `advanced_form` show the keys of another of its commands."""
    return gr.update(**{**form.props, "command": command})  # all: in a tab that was not opened yet they replace all


def _form(
    studio: Studio,
    name: str,
    sections: Sequence[Section],
    said: Mapping[str, str],
    others: Mapping[str, Sequence[str]],
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
        command=next(iter(others)),
        server_functions=[server_function(suggest)],
        sections=[{"title": title, "keys": list(keys)} for title, keys in sections],
        advanced={command: list(keys) for command, keys in others.items()},
    )
    studio.forms.append(form)
    return form


def clean(value: Any) -> Said:
    """What a form sent, whoever sent it: texts only."""
    if not isinstance(value, dict):
        return {}
    return {str(name): str(text) for name, text in value.items() if text not in ("", None)}
