"""The data tab of the studio: rows as the model sees them, a check of all of them, and data sets out of long text."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import gradio as gr

from tunesmith.config.schema import KEYS, RunConfig
from tunesmith.studio.check_shown import check_page
from tunesmith.studio.choices import dataset_names, said
from tunesmith.studio.data_look import Checking, Looker
from tunesmith.studio.key_fields import key_field
from tunesmith.studio.key_form import advanced_form, clean
from tunesmith.studio.making_view import making_view
from tunesmith.studio.markup import note, page_part
from tunesmith.studio.model_choice import lay_style, model_and_template
from tunesmith.studio.shell import PRIVATE, Studio, shown_error, told
from tunesmith.studio.words import say

FIRST_DATASET = "identity"
_COUNT = 5
_MOST = 50
_NAMES = ("model_name_or_path", "template", "stage", "cutoff_len", "dataset_dir", "dataset")


def data_tab(studio: Studio) -> None:
    """Lays the tab out where it is called."""
    lay_style()
    with gr.Tabs(elem_id="data-tabs"):
        with studio.worded(gr.Tab(id="data-look", elem_id="tab-data-look"), label="data.look"):
            _looking(studio)
        with studio.worded(gr.Tab(id="data-make", elem_id="tab-data-make"), label="data.make"):
            making_view(studio)


def dataset_choice(studio: Studio, prefix: str, *, several: bool = False) -> tuple[gr.Textbox, gr.Dropdown]:
    """A folder of dataset_info.json, and its data sets or paths of files: one, or several."""
    folder = key_field(studio, "dataset_dir", prefix)
    names = dataset_names(studio.workspace, KEYS["dataset_dir"].default)
    first = [name for name in names if name == FIRST_DATASET]
    chooser = gr.Dropdown(
        names,
        value=first if several else next(iter(first), None),
        multiselect=several,
        allow_custom_value=True,
        interactive=True,
        elem_id=f"{prefix}-dataset",
        min_width=180,
    )
    studio.worded(chooser, label="data.dataset", info="data.dataset_info")

    def fresh(dataset_dir: str) -> Any:
        return gr.update(choices=dataset_names(studio.workspace, dataset_dir))

    folder.change(told(fresh), folder, chooser, **PRIVATE)
    chooser.focus(told(fresh), folder, chooser, **PRIVATE)
    return folder, chooser


def _looking(studio: Studio) -> None:
    with gr.Row(elem_classes="ts-fields"):
        model, template = model_and_template(studio, "data")
        stage = key_field(studio, "stage", "data")
        cutoff = key_field(studio, "cutoff_len", "data")
    with gr.Row(elem_classes="ts-fields"):
        folder, dataset = dataset_choice(studio, "data")
        first = studio.worded(
            gr.Number(1, precision=0, minimum=1, elem_id="data-first", min_width=90), label="data.first"
        )
        count = studio.worded(
            gr.Number(_COUNT, precision=0, minimum=1, maximum=_MOST, elem_id="data-count", min_width=90),
            label="data.count",
        )
    more = advanced_form(studio, "data", {"data": _NAMES})
    with gr.Row(elem_classes="ts-line"):
        buttons = {name: gr.Button(size="md", min_width=96, elem_id=f"data-{name}") for name in _BUTTONS}
        for name, button in buttons.items():
            button.variant = "primary" if name == "show" else "secondary"
            studio.worded(button, value=f"data.{name}")
    studio.markdown("data.nothing_yet", elem_classes="ts-quiet")
    shown = gr.HTML(elem_id="data-shown", padding=False)
    _connect(studio, buttons, [more, model, template, stage, cutoff, folder, dataset], first, count, shown)


_BUTTONS = ("show", "previous", "next", "run_check", "stop_check")


def _connect(studio: Studio, buttons: dict[str, Any], fields: list[Any], first: Any, count: Any, shown: Any) -> None:
    looker, inputs = Looker(studio.workspace), [studio.language, first, count, *fields]
    checking = gr.State(Checking)

    def config_of(more: Any, *values: Any) -> RunConfig:
        return looker.config(said(dict(zip(_NAMES, values, strict=True))), clean(more))

    def look(language: str, first: float | None, count: float | None, *values: Any, step: int = 0) -> list[Any]:
        many = min(_MOST, int(count or _COUNT))
        start = max(1, int(first or 1) + step * many)
        return [start, looker.rows(config_of(*values), start, many, language)]

    def earlier(*values: Any) -> list[Any]:
        return look(*values, step=-1)

    def later(*values: Any) -> list[Any]:
        return look(*values, step=1)

    def check(checking: Checking, language: str, first: Any, count: Any, *values: Any) -> Iterator[str]:
        try:
            for found in checking.run(config_of(*values)):
                if isinstance(found, dict):
                    yield check_page(found, language)
                    return
                yield page_part(note(say("data.checking", language, seconds=f"{found:.0f}"), "quiet"))
            yield page_part(note(say("data.stopped", language), "warn"))
        except Exception as error:
            raise shown_error(error, language) from None

    seen: dict[str, Any] = {**PRIVATE, "show_progress": "minimal"}
    for name, act in (("show", look), ("previous", earlier), ("next", later)):
        buttons[name].click(told(act), inputs, [first, shown], **seen)
    buttons["run_check"].click(check, [checking, *inputs], shown, concurrency_limit=4, **PRIVATE)
    buttons["stop_check"].click(lambda checking: checking.cancel(), checking, None, queue=False, **PRIVATE)
