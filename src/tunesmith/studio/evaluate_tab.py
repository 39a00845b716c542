"""The evaluate tab of the studio: a data set is answered or a benchmark asked, in a process of its own; results."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import gradio as gr

from tunesmith.config.metrics import METRICS
from tunesmith.config.schema import RunConfig
from tunesmith.config.tasks import BENCHMARKS
from tunesmith.studio.choices import jobs, model_keys
from tunesmith.studio.command_shown import command_page
from tunesmith.studio.data_tab import dataset_choice
from tunesmith.studio.evaluating import DATA_KEYS, KINDS, TASK_KEYS, compare_page, evaluation_config, folder_name
from tunesmith.studio.job_view import JobView, job_view, starters
from tunesmith.studio.key_fields import key_field, key_fields
from tunesmith.studio.key_form import advanced_form, clean, for_command
from tunesmith.studio.model_choice import MODEL_KEYS, ModelChoice, lay_style, model_choice
from tunesmith.studio.results_shown import numbers_page, read_results, samples_page
from tunesmith.studio.shell import PRIVATE, Studio, choices_in, told

COMMANDS = ("predict", "eval")
_DATA = {"cutoff_len": 1024, "max_samples": 100, "per_device_eval_batch_size": 4, "max_new_tokens": 512}
_OWN = {command: (*MODEL_KEYS, "do_predict", *names) for command, names in KINDS.values()}
"""Keys that have a control here; do_predict is what is asked."""


@dataclass
class _Form:
    """The parts that say what is started."""

    model: ModelChoice
    what: gr.Radio
    fields: dict[str, Any]
    more: gr.HTML
    start: tuple[gr.Button, gr.Button, gr.HTML]


def evaluate_tab(studio: Studio) -> None:
    """Lays the tab out where it is called."""
    lay_style()
    form = _form(studio)
    view = job_view(studio, "evaluate", COMMANDS)
    with gr.Tabs(elem_id="evaluate-tabs"):
        with studio.worded(gr.Tab(id="evaluate-results", elem_id="tab-evaluate-results"), label="evaluate.results"):
            _results(studio, view)
        with studio.worded(gr.Tab(id="evaluate-compare", elem_id="tab-evaluate-compare"), label="evaluate.compare"):
            _comparing(studio)
    _connect(studio, form, view)


def _form(studio: Studio) -> _Form:
    with gr.Row(elem_classes="ts-fields"):
        model = model_choice(studio, "evaluate")
    what = gr.Radio(choices_in("evaluate", list(KINDS)), value="data", elem_id="evaluate-what")
    studio.worded(what, choices=("evaluate", list(KINDS)), label="evaluate.what")
    with gr.Group() as data:
        with gr.Row(elem_classes="ts-fields"):
            folder, dataset = dataset_choice(studio, "evaluate", several=True)
            output = key_field(studio, "output_dir", "evaluate", placeholder=folder_name("predict", "…"))
        fields = {"dataset_dir": folder, "eval_dataset": dataset, "output_dir": output}
        rest = tuple(name for name in DATA_KEYS if name not in fields and name != "metrics")
        fields |= key_fields(studio, rest, "evaluate", **_DATA)
        fields["metrics"] = key_field(
            studio, "metrics", "evaluate", [], choices=list(METRICS), multiselect=True, allow_custom_value=True
        )
    with gr.Group(visible=False) as task:
        tasks = [f"{name}_{split}" for name, splits in BENCHMARKS.items() for split in splits]
        with gr.Row(elem_classes="ts-fields"):
            fields["task"] = key_field(studio, "task", "evaluate", tasks[0], choices=tasks, allow_custom_value=True)
            fields["save_dir"] = key_field(studio, "save_dir", "evaluate", placeholder=folder_name("eval", "…"))
        fields |= key_fields(studio, tuple(name for name in TASK_KEYS if name not in fields), "evaluate")
    more = advanced_form(studio, "evaluate", _OWN)
    start = starters(studio, "evaluate", "data.start")

    def toggled(chosen: str) -> list[Any]:
        return [*(gr.update(visible=chosen == name) for name in KINDS), for_command(more, KINDS[chosen][0])]

    what.change(toggled, what, [data, task, more], **PRIVATE)
    return _Form(model, what, fields, more, start)


def _connect(studio: Studio, form: _Form, view: JobView) -> None:
    names = list(form.fields)
    inputs = [studio.language, form.what, form.more, *form.model.inputs, *form.fields.values()]

    def config_of(what: str, more: Any, model: Any, run: Any, template: Any, *values: Any) -> RunConfig:
        keys = model_keys(studio.workspace, model, run, template)
        return evaluation_config(studio.workspace, what, keys, dict(zip(names, values, strict=True)), clean(more))

    def begin(language: str, *values: Any) -> list[Any]:
        return view.start(config_of(*values), language)

    start, preview, shown = form.start
    start.click(told(begin), inputs, view.parts, **PRIVATE)
    preview.click(told(lambda language, *values: command_page(config_of(*values), language)), inputs, shown, **PRIVATE)


def _results(studio: Studio, view: JobView) -> None:
    numbers = gr.HTML(elem_id="evaluate-numbers", padding=False)
    with gr.Row(elem_classes="ts-line"):
        back = studio.worded(gr.Button(size="sm", min_width=96, elem_id="evaluate-back"), value="data.previous")
        page = studio.worded(
            gr.Number(1, precision=0, minimum=1, min_width=96, elem_id="evaluate-page"), label="evaluate.page"
        )
        studio.lookouts.append(page)
        on = studio.worded(gr.Button(size="sm", min_width=96, elem_id="evaluate-on"), value="data.next")
    samples = gr.HTML(elem_id="evaluate-samples", padding=False)

    def show(folder: str | None, page: float | None, language: str, step: int = 0) -> list[Any]:
        if not folder:
            return ["", 1, ""]
        found = read_results(studio.workspace.inside(folder))
        place = min(max(1, int(page or 1) + step), found.n_pages)
        return [numbers_page(found, language), place, samples_page(found, place, language)]

    def settled(mark: str, language: str) -> list[Any]:
        """The results of what has ended; while there are none, nothing is said about it."""
        folder = mark.rpartition("|")[0]
        return show(folder, 1, language) if folder and has_results(folder) else ["", 1, ""]

    def has_results(folder: str) -> bool:
        path = studio.workspace.inside(folder)
        return any((path / name).is_file() for name in ("generated_predictions.jsonl", "questions.jsonl"))

    given, parts = [view.chooser, page, studio.language], [numbers, page, samples]
    view.settled.change(told(settled), [view.settled, studio.language], parts, **PRIVATE)
    page.submit(told(show), given, parts, **PRIVATE)
    back.click(told(lambda folder, page, language: show(folder, page, language, -1)), given, parts, **PRIVATE)
    on.click(told(lambda folder, page, language: show(folder, page, language, 1)), given, parts, **PRIVATE)


def _comparing(studio: Studio) -> None:
    with gr.Row(elem_classes="ts-line"):
        choosers = [
            studio.worded(
                gr.Dropdown([], value=None, interactive=True, elem_id=f"evaluate-compare-{name}", min_width=200),
                label=f"evaluate.{name}_run",
            )
            for name in ("first", "second")
        ]
        button = gr.Button(variant="primary", size="md", min_width=110, scale=0, elem_id="evaluate-compare-run")
        studio.worded(button, value="evaluate.compare")
    shown = gr.HTML(elem_id="evaluate-compared", padding=False)

    def fresh() -> Any:
        return gr.update(choices=[studio.workspace.shown(run.folder) for run in jobs(studio.workspace, COMMANDS)])

    for chooser in choosers:
        chooser.focus(fresh, None, chooser, **PRIVATE)
        studio.page.load(fresh, None, chooser, **PRIVATE)
    button.click(
        told(lambda *folders: compare_page(studio.workspace, folders)),
        choosers, shown, **{**PRIVATE, "show_progress": "minimal"},
    )  # fmt: skip
