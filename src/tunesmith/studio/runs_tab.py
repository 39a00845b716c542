"""The tab Runs: all runs of the workspace; stop, resume, clone, sweep, compare."""

from __future__ import annotations

from typing import Any

import gradio as gr

from tunesmith.core.errors import TunesmithError
from tunesmith.core.run_state import RunState, read_state
from tunesmith.recipes.runs import clone, config_file, resume, stop, sweep
from tunesmith.studio import start
from tunesmith.studio.form import config_of, read_yaml
from tunesmith.studio.live import beside, compared, live_view, run_list
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
            self.stop = self._button("stop", variant="stop")
            self.kill = self._button("kill", variant="stop")
            self.resume = self._button("resume")
            self.to_form = self._button("to_form")
            self.compare = self._button("compare", variant="primary")
        self.said = gr.Markdown("&nbsp;", elem_id="runs-said")
        with self.studio.worded(gr.Accordion(open=False, elem_id="runs-clone"), label="runs.clone"):
            with gr.Row():
                self.output = self.studio.worded(gr.Textbox(elem_id="runs-output", max_lines=1), label="runs.output")
                self.changes = gr.Textbox(elem_id="runs-changes", lines=3, placeholder="learning_rate=1e-4,2e-4")
                self.studio.worded(self.changes, label="runs.changes")
            with gr.Row(elem_classes="buttons"):
                self.clone = self._button("clone_button")
                self.sweep = self._button("sweep_button")
        self.live = live_view(self.studio, "runs-live")
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
        state = self._one(names, language)
        words = _words(changes, language)
        self._guard(state, [*words, f"output_dir={output}"])
        folder = clone(state, self.workspace.root, str(self.workspace.inside(output)), words)
        return say("runs.queued", language, folders=self.workspace.shown(folder))

    def _sweep(self, names: Any, output: str, changes: str, language: str) -> str:
        state = self._one(names, language)
        pairs = [word.partition("=") for word in _words(changes, language)]
        choices = {key: value.split(",") for key, _, value in pairs if "," in value}
        if not choices:
            raise TunesmithError(say("runs.no_values", language))
        fixed = [f"{key}={value}" for key, _, value in pairs if "," not in value]
        for key, values in choices.items():
            for value in values:
                self._guard(state, [f"{key}={value}", *fixed])
        base = self.workspace.inside(output or self.workspace.shown(state.folder) + "-sweep")
        words = [str(config_file(state.folder)), *fixed, f"output_dir={base}", "resume_from_checkpoint=null"]
        folders = sweep(self.workspace.root, words, choices)
        return say("runs.queued", language, folders=", ".join(map(self.workspace.shown, folders)))

    def _guard(self, state: RunState, words: list[str]) -> None:
        """Refuses changes that the form would refuse: paths outside, secrets, the environment."""
        said = read_yaml(config_file(state.folder).read_text(encoding="utf-8"), "run")
        said |= dict(_pair(word) for word in words)
        config_of({**said, "resume_from_checkpoint": "null"}, "train", self.workspace)


def _pair(word: str) -> tuple[str, str]:
    name, _, value = word.partition("=")
    return name, value


def _words(text: str, language: str) -> list[str]:
    """The lines as `key=value` words.

    Raises:
        TunesmithError: a line is none.
    """
    lines = [line.strip() for line in (text or "").splitlines() if line.strip()]
    for line in lines:
        name, equals, _ = line.partition("=")
        if not equals or not name.strip().isidentifier():
            raise TunesmithError(say("runs.bad_line", language, line=line[:80]))
    return ["=".join(part.strip() for part in line.split("=", 1)) for line in lines]
