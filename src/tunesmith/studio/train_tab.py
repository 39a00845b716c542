"""The tab Train: a form of all keys, and beside it what goes on in the run that was started."""

from __future__ import annotations

from typing import Any

import gradio as gr

from tunesmith.core.errors import TunesmithError
from tunesmith.core.run_state import find_runs, read_state
from tunesmith.recipes.runs import resume, stop
from tunesmith.studio import start
from tunesmith.studio.form import config_of, read_yaml, to_yaml
from tunesmith.studio.key_form import clean, key_form
from tunesmith.studio.live import follow_run, live_view
from tunesmith.studio.shell import PRIVATE, Studio, run_folders, told
from tunesmith.studio.words import say

SECTIONS = tuple(
    (title, tuple(keys.split()))
    for title, keys in {
        "model": "model_name_or_path adapter_name_or_path template finetuning_type quantization_bit "
        "quantization_method rope_scaling flash_attn",
        "data": "stage dataset_dir dataset cutoff_len max_samples val_size packing",
        "training": "learning_rate num_train_epochs max_steps per_device_train_batch_size gradient_accumulation_steps "
        "lr_scheduler_type warmup_steps max_grad_norm optim bf16 fp16 seed logging_steps save_steps eval_strategy "
        "eval_steps report_to",
        "method": "lora_rank lora_alpha lora_dropout lora_target",
        "output": "output_dir overwrite_output_dir plot_loss",
    }.items()
)
"""What stands open in the form, by section."""
NOTHING = "&nbsp;"


def train_tab(studio: Studio) -> None:
    """Lays the tab out where it is called."""
    _Builder(studio).build()


class _Builder:
    """Components and their events."""

    def __init__(self, studio: Studio) -> None:
        self.studio, self.workspace = studio, studio.workspace

    def build(self) -> None:
        with gr.Row(elem_classes="train-columns"):
            with gr.Column(scale=3, min_width=320):
                self.form = key_form(self.studio, "train", SECTIONS, start.FIRST)
            with gr.Column(scale=2, min_width=320, elem_classes="side"):
                self._buttons()
                self._shown()
                self._files()
        self._connect()
        self.studio.train_form = self.form

    def _buttons(self) -> None:
        with gr.Row(elem_classes="buttons"):
            self.start = self._button("start", variant="primary")
            self.check = self._button("check")
            self.preview = self._button("preview")
        self.said = gr.Markdown("", elem_id="train-said")

    def _shown(self) -> None:
        runs = run_folders(self.workspace, checkpoints=False)
        self.run = gr.Dropdown(runs, value=None, elem_id="train-run", interactive=True, filterable=True)
        self.studio.worded(self.run, label="train.shown")
        self.studio.lookouts.append(self.run)
        with gr.Row(elem_classes="buttons"):
            self.stop = self._button("stop", variant="stop", interactive=False)
            self.resume = self._button("resume", interactive=False)
        why = gr.Markdown(NOTHING, elem_id="train-why", elem_classes="chat-note")
        self.live = live_view(self.studio, "train-live")
        follow_run(self.studio, self.live, {"stop": self.stop, "resume": self.resume}, why)

    def _files(self) -> None:
        self.command = gr.Code("", language="shell", elem_id="train-command", visible=False, interactive=False)
        self.studio.worded(self.command, label="train.command")
        self.yaml = gr.Code("", language="yaml", elem_id="train-yaml", visible=False, interactive=True)
        self.studio.worded(self.yaml, label="train.yaml")
        self.take = self._button("take", visible=False)
        self.file = gr.Textbox("configs/train.yaml", elem_id="train-file", max_lines=1)
        self.studio.worded(self.file, label="train.file", info="train.file_info")
        with gr.Row(elem_classes="buttons"):
            self.load = self._button("load")
            self.save = self._button("save")
            self.fresh = self._button("fresh")

    def _button(self, name: str, **facts: Any) -> gr.Button:
        facts = {"size": "sm", "min_width": 92, **facts}
        return self.studio.worded(gr.Button(elem_id=f"train-{name}", **facts), value=f"train.{name}")

    def _connect(self) -> None:
        form, said, language = self.form, self.said, self.studio.language
        shown = [said, self.run, self.live]
        previewed = [self.command, self.yaml, self.take, said]
        self._on(self.start, self._start, [form, language], shown)
        self._on(self.check, self._check, [form, language], [said])
        self._on(self.preview, self._preview, [form], previewed)
        self._on(self.take, self._take, [self.yaml, language], [form, said])
        self._on(self.save, self._save, [form, self.file, language], [said])
        self._on(self.load, self._load, [self.file, language], [form, said])
        self._on(self.fresh, self._fresh, [language], [form, said])
        self._on(self.stop, self._stop, [self.run, language], [said])
        self._on(self.resume, self._resume, [self.run, language], [said])
        self.run.input(lambda name: name or "", self.run, self.live, **PRIVATE)
        self.run.focus(self._runs, None, self.run, **PRIVATE)
        self.studio.page.load(self._newest, None, [self.run, self.live], **PRIVATE)

    @staticmethod
    def _on(button: gr.Button, handler: Any, inputs: list[Any], outputs: list[Any]) -> None:
        button.click(told(handler), inputs, outputs, **PRIVATE)

    # ---- what buttons do

    def _start(self, value: Any, language: str) -> Any:
        folder = self.workspace.shown(start.start(clean(value), self.workspace))
        choices = run_folders(self.workspace, checkpoints=False)
        return say("train.queued", language, folder=folder), gr.update(choices=choices, value=folder), folder

    def _check(self, value: Any, language: str) -> str:
        config_of(start.with_output(clean(value)), "train", self.workspace)
        return say("train.good", language)

    def _preview(self, value: Any) -> Any:
        said = start.with_output(clean(value))
        config_text = to_yaml(said)
        shown = gr.update(value=start.command_of(said), visible=True)
        return shown, gr.update(value=config_text, visible=True), gr.update(visible=True), ""

    def _take(self, text: str, language: str) -> Any:
        return read_yaml(text or "", "YAML"), say("train.taken", language)

    def _save(self, value: Any, name: str, language: str) -> str:
        path = start.save(clean(value), name or "", self.workspace)
        return say("train.saved", language, file=self.workspace.shown(path))

    def _load(self, name: str, language: str) -> Any:
        return start.load(name or "", self.workspace), say("train.loaded", language, file=name.strip())

    def _fresh(self, language: str) -> Any:
        return dict(start.FIRST), say("train.reset", language)

    def _stop(self, name: str | None, language: str) -> str:
        return stop(self._state(name, language))

    def _resume(self, name: str | None, language: str) -> str:
        folder = self.workspace.shown(resume(self._state(name, language), self.workspace.root))
        return say("train.resumed", language, folder=folder)

    def _state(self, name: str | None, language: str) -> Any:
        state = read_state(self.workspace.inside(name)) if name else None
        if state is None:
            raise TunesmithError(say("train.no_run", language))
        return state

    # ---- what the page asks by itself

    def _runs(self) -> Any:
        return gr.update(choices=run_folders(self.workspace, checkpoints=False))

    def _newest(self) -> Any:
        """A page that is opened or reloaded shows the run at work, else the newest."""
        runs = find_runs(self.workspace.root)
        at_work = [run for run in runs if run.state in ("starting", "running", "stopping")] or runs
        name = self.workspace.shown(at_work[0].folder) if at_work else None
        choices = [self.workspace.shown(run.folder) for run in runs]
        return gr.update(choices=choices, value=name), name or ""
