"""The export tab of the studio: an adapter is merged into its base in a process of its own, and proven."""

from __future__ import annotations

from typing import Any

import gradio as gr

from tunesmith.config.schema import RunConfig
from tunesmith.studio.choices import model_keys
from tunesmith.studio.command_shown import command_page
from tunesmith.studio.exporting import FIELDS, export_config, report_page
from tunesmith.studio.job_view import job_view, starters
from tunesmith.studio.key_fields import key_fields
from tunesmith.studio.key_form import advanced_form, clean
from tunesmith.studio.model_choice import MODEL_KEYS, lay_style, model_choice
from tunesmith.studio.shell import PRIVATE, Studio, told

_FOLDER = "models/merged"


def export_tab(studio: Studio) -> None:
    """Lays the tab out where it is called."""
    lay_style()
    with gr.Row(elem_classes="ts-fields"):
        model = model_choice(studio, "export")
    fields = key_fields(studio, FIELDS, "export", export_dir=_FOLDER)
    more = advanced_form(studio, "export", {"export": (*MODEL_KEYS, *FIELDS)})
    start, preview, command = starters(studio, "export", "export.start")
    view = job_view(studio, "export", ("export",))
    report = gr.HTML(elem_id="export-report", padding=False)
    names = list(fields)

    def config_of(more: Any, model: Any, run: Any, template: Any, *values: Any) -> RunConfig:
        keys = model_keys(studio.workspace, model, run, template)
        return export_config(studio.workspace, keys, dict(zip(names, values, strict=True)), clean(more))

    def begin(language: str, *values: Any) -> list[Any]:
        return view.start(config_of(*values), language)

    def show(settled: str, language: str) -> str:
        folder = settled.rpartition("|")[0]
        return report_page(studio.workspace.inside(folder), language) if folder else ""

    def tell(language: str, *values: Any) -> str:
        return command_page(config_of(*values), language)

    inputs = [studio.language, more, *model.inputs, *fields.values()]
    start.click(told(begin), inputs, view.parts, **PRIVATE)
    preview.click(told(tell), inputs, command, **PRIVATE)
    view.settled.change(told(show), [view.settled, studio.language], report, **PRIVATE)
