"""The tab Runs: all runs of the workspace; stop, resume, clone, sweep, compare."""

from __future__ import annotations

from typing import Any

import gradio as gr

from tunesmith.core.errors import TunesmithError
from tunesmith.core.run_state import RunState, read_state
from tunesmith.recipes.runs import resume, stop
from tunesmith.studio import start
from tunesmith.studio.live import beside, compared, follow_run, live_view, run_list
from tunesmith.studio.repeat import clone_of, sweep_of
from tunesmith.studio.shell import PRIVATE, Studio, told
from tunesmith.studio.words import say


def runs_tab(studio: Studio) -> None:
    """Lays the tab out where it is called."""
    _Builder(studio).build()


class _Builder:
    """Components and their events."""

    def __init__(self, studio: Studio) -> None:
        self.studio, self.workspace = studio, studio.workspace

    def build(self) -> None:
        self.list = run_list(self.studio, "runs-list")
        with gr.Row(elem_classes="buttons"):
            self.stop = self._button("stop", variant="stop", interactive=False)
            self.kill = self._button("kill", variant="stop", interactive=False)
            self.resume = self._button("resume", interactive=False)
            self.to_form = self._button("to_form")
            self.compare = self._button("compare", variant="primary")
        why = gr.Markdown("&nbsp;", elem_id="runs-why", elem_classes="chat-note")
        self.said = gr.Markdown("", elem_id="runs-said")
        with self.studio.worded(gr.Accordion(open=False, elem_id="runs-clone"), label="runs.clone"):
            with gr.Row():
                self.output = self.studio.worded(gr.Textbox(elem_id="runs-output", max_lines=1), label="runs.output")
                self.changes = gr.Textbox(elem_id="runs-changes", lines=3, placeholder="learning_rate=1e-4,2e-4")
                self.studio.worded(self.changes, label="runs.changes")
            with gr.Row(elem_classes="buttons"):
                self.clone = self._button("clone_button")
                self.sweep = self._button("sweep_button")
        self.live = live_view(self.studio, "runs-live")
        follow_run(self.studio, self.live, {"stop": self.stop, "kill": self.kill, "resume": self.resume}, why)
        self.beside = beside(self.studio, "runs-beside")
        self._connect()

    def _button(self, name: str, **facts: Any) -> gr.Button:
        facts = {"size": "sm", "min_width": 92, **facts}
        return self.studio.worded(gr.Button(elem_id=f"runs-{name}", **facts), value=f"runs.{name}")

    def _connect(self) -> None:
        chosen, language = self.list, self.studio.language
        self.list.input(lambda names: names[-1] if names else "", chosen, self.live, **PRIVATE)
        self._on(self.stop, self._stop, [chosen, language], [self.said])
        self._on(self.kill, self._kill, [chosen, language], [self.said])
        self._on(self.resume, self._resume, [chosen, language], [self.said])
        self._on(self.to_form, self._to_form, [chosen, language], [self.studio.train_form, self.said])
        self._on(self.compare, self._compare, [chosen, language], [self.beside])
        asked = [chosen, self.output, self.changes, language]
        self._on(self.clone, self._clone, asked, [self.said])
        self._on(self.sweep, self._sweep, asked, [self.said])

    @staticmethod
    def _on(button: gr.Button, handler: Any, inputs: list[Any], outputs: list[Any]) -> None:
        button.click(told(handler), inputs, outputs, **PRIVATE)

    def _one(self, names: Any, language: str) -> RunState:
        """The run that was chosen last."""
        state = read_state(self.workspace.inside(str(names[-1]))) if names else None
        if state is None:
            raise TunesmithError(say("runs.choose_one", language))
        return state

    def _stop(self, names: Any, language: str) -> str:
        return stop(self._one(names, language))

    def _kill(self, names: Any, language: str) -> str:
        return stop(self._one(names, language), now=True)

    def _resume(self, names: Any, language: str) -> str:
        folder = self.workspace.shown(resume(self._one(names, language), self.workspace.root))
        return say("train.resumed", language, folder=folder)

    def _to_form(self, names: Any, language: str) -> Any:
        folder = self.workspace.shown(self._one(names, language).folder)
        return start.of_run(folder, self.workspace), say("runs.taken", language, folder=folder)

    def _compare(self, names: Any, language: str) -> Any:
        if not names or len(names) < 2:
            raise TunesmithError(say("runs.choose_two", language))
        return compared(self.studio, [str(name) for name in names])

    def _clone(self, names: Any, output: str, changes: str, language: str) -> str:
        folder = clone_of(self._one(names, language), output or "", _pairs(changes, language), self.workspace)
        return say("runs.queued", language, folders=self.workspace.shown(folder))

    def _sweep(self, names: Any, output: str, changes: str, language: str) -> str:
        pairs = _pairs(changes, language)
        choices = {key: value.split(",") for key, value in pairs.items() if "," in value}
        if not choices:
            raise TunesmithError(say("runs.no_values", language))
        fixed = {key: value for key, value in pairs.items() if key not in choices}
        folders = sweep_of(self._one(names, language), output or "", fixed, choices, self.workspace)
        return say("runs.queued", language, folders=", ".join(map(self.workspace.shown, folders)))


def _pairs(text: str, language: str) -> dict[str, str]:
    """The lines `key=value`.

    Raises:
        TunesmithError: a line is none.
    """
    lines = [line.strip() for line in (text or "").splitlines() if line.strip()]
    for line in lines:
        name, equals, _ = line.partition("=")
        if not equals or not name.strip().isidentifier():
            raise TunesmithError(say("runs.bad_line", language, line=line[:80]))
    return {name.strip(): value.strip() for name, _, value in (line.partition("=") for line in lines)}
