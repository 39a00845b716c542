"""The part of the data tab that makes data sets out of long text: a form, a run of its own, its account."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gradio as gr

from tunesmith.config.schema import RunConfig
from tunesmith.recipes.dialogue import dialogue
from tunesmith.recipes.make import make
from tunesmith.studio.check_shown import facts_of
from tunesmith.studio.choices import FIRST_MODEL, said
from tunesmith.studio.command_shown import command_page
from tunesmith.studio.form import Said, tab_config
from tunesmith.studio.job_view import JobView, job_view, starters
from tunesmith.studio.key_fields import key_fields
from tunesmith.studio.key_form import advanced_form, clean, for_command
from tunesmith.studio.markup import note, page_part, table, tag
from tunesmith.studio.shell import PRIVATE, Studio, choices_in, told
from tunesmith.studio.words import say
from tunesmith.studio.workspace import Workspace
from tunesmith.synthesis.output import RESULTS

COMMANDS = {"questions": "data make", "speech": "data dialogue"}
_FIRST = ("input_file_path", "output_dir", "dataset_name")
_ROLES = ("roles", "text_layout", "dialogue_gap")
_ENTRIES = ("entries_per_chunk", "chunk_tokens", "language", "preference")
_WRITER = ("generator", "base_url", "generator_model", "model_name_or_path")
_OWN = (*_FIRST, *_ROLES, *_ENTRIES, *_WRITER)
_OUTPUT = "data/made"


def making_config(workspace: Workspace, what: str, keys: dict[str, Any], more: Said | None = None) -> RunConfig:
    """The configuration behind the form.

    Args:
        workspace: guards paths.
        what: `questions` or `speech`.
        keys: of the form; what the command does not use is left out.
        more: what was set under Advanced.

    Raises:
        TunesmithError: a path is outside, or the configuration cannot be used.
    """
    return tab_config(workspace, COMMANDS[what], said(keys), more)


def estimate(config: RunConfig) -> str:
    """What the making would take; nothing is asked and nothing written."""
    config = config.replace(dry_run=True)
    return make(config) if config.command == COMMANDS["questions"] else dialogue(config)


def account_page(folder: Path, language: str = "en") -> str:
    """The account of a data set that was made.

    Args:
        folder: its `output_dir`.
        language: of the heads.
    """
    try:
        found = json.loads((folder / RESULTS).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return ""
    names = ("requested", "kept", "failed", "train_rows", "eval_rows")
    facts = [(f"{found[name]:,}", say(f"made.{name}", language)) for name in names if name in found]
    facts.append((f"{found.get('cost', 0):.4f}", say("made.cost", language)))
    parts = [tag("h3", say("data.account", language)), facts_of(facts)]
    reasons = found.get("failed_by_reason") or {}
    if reasons:
        heads = (say("check.reason", language), say("made.failed", language))
        parts.append(table(heads, reasons.items(), numbers_from=1))
    parts.append(note(say("made.where", language, folder=folder), "quiet"))
    return page_part(*parts)


@dataclass
class _Form:
    """The parts of the form."""

    what: gr.Radio
    fields: dict[str, Any]
    more: gr.HTML
    start: gr.Button
    preview: gr.Button
    cost: gr.Button
    told: gr.HTML


def making_view(studio: Studio) -> None:
    """Lays the form out where it is called."""
    form = _form(studio)
    view = job_view(studio, "make", tuple(COMMANDS.values()))
    account = gr.HTML(elem_id="make-account", padding=False)
    _connect(studio, form, view)

    def count(settled: str, language: str) -> str:
        folder = settled.rpartition("|")[0]
        return account_page(Path(studio.workspace.shown(studio.workspace.inside(folder))), language) if folder else ""

    view.settled.change(told(count), [view.settled, studio.language], account, **PRIVATE)


def _form(studio: Studio) -> _Form:
    what = gr.Radio(choices_in("data", list(COMMANDS)), value="questions", elem_id="make-what")
    studio.worded(what, choices=("data", list(COMMANDS)), label="data.what")
    fields = key_fields(studio, _FIRST, "make", output_dir=_OUTPUT)
    with gr.Group(visible=False) as speech:
        fields |= key_fields(studio, _ROLES, "make")
    with gr.Group() as entries:
        fields |= key_fields(studio, _ENTRIES, "make")
    fields |= key_fields(studio, _WRITER, "make", model_name_or_path=FIRST_MODEL)
    studio.markdown("data.secret", elem_classes="ts-quiet")
    more = advanced_form(studio, "make", dict.fromkeys(COMMANDS.values(), _OWN))
    start, preview, command = starters(studio, "make", "data.start")
    cost = studio.worded(gr.Button(size="md", min_width=96, elem_id="make-estimate"), value="data.estimate")

    def toggled(chosen: str) -> list[Any]:
        is_speech = chosen == "speech"
        return [gr.update(visible=is_speech), gr.update(visible=not is_speech), for_command(more, COMMANDS[chosen])]

    what.change(toggled, what, [speech, entries, more], **PRIVATE)
    return _Form(what, fields, more, start, preview, cost, command)


def _connect(studio: Studio, form: _Form, view: JobView) -> None:
    names, inputs = list(form.fields), [studio.language, form.what, form.more, *form.fields.values()]

    def config_of(what: str, more: Any, *values: Any) -> RunConfig:
        return making_config(studio.workspace, what, dict(zip(names, values, strict=True)), clean(more))

    def begin(language: str, *values: Any) -> list[Any]:
        return view.start(config_of(*values), language)

    def tell(language: str, *values: Any) -> str:
        return page_part(note(estimate(config_of(*values)), "warn"))

    form.start.click(told(begin), inputs, view.parts, **PRIVATE)
    form.preview.click(
        told(lambda language, *values: command_page(config_of(*values), language)),
        inputs, form.told, **PRIVATE,
    )  # fmt: skip
    form.cost.click(told(tell), inputs, form.told, **{**PRIVATE, "show_progress": "minimal"})
