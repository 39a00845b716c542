"""The export tab of the studio: an adapter is merged into its base in a process of its own, and proven."""

from __future__ import annotations

from typing import Any

import gradio as gr

from tunesmith.studio.choices import model_keys
from tunesmith.studio.exporting import FIELDS, MORE, export_config, report_page
from tunesmith.studio.job_view import job_view
from tunesmith.studio.key_fields import key_fields
from tunesmith.studio.model_choice import lay_style, model_choice
from tunesmith.studio.shell import PRIVATE, Studio, told

_FOLDER = "models/merged"


def export_tab(studio: Studio) -> None:
    """Lays the tab out where it is called."""
    lay_style()
    with gr.Row(elem_classes="ts-fields"):
        model = model_choice(studio, "export")
    fields = key_fields(studio, FIELDS, "export", export_dir=_FOLDER)
    with studio.worded(gr.Accordion(open=False, elem_id="export-more"), label="data.more"):
        fields |= key_fields(studio, MORE, "export")
    start = studio.worded(gr.Button(variant="primary", elem_id="export-start"), value="export.start")
    view = job_view(studio, "export", ("export",))
    report = gr.HTML(elem_id="export-report", padding=False)
    names = list(fields)

    def begin(language: str, model: Any, run: Any, template: Any, *values: Any) -> list[Any]:
        keys = model_keys(studio.workspace, model, run, template)
        return view.start(export_config(studio.workspace, keys, dict(zip(names, values, strict=True))), language)

    def show(settled: str, language: str) -> str:
        folder = settled.rpartition("|")[0]
        return report_page(studio.workspace.inside(folder), language) if folder else ""

    start.click(told(begin), [studio.language, *model.inputs, *fields.values()], view.parts, **PRIVATE)
    view.settled.change(told(show), [view.settled, studio.language], report, **PRIVATE)
