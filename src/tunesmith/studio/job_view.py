"""The part of a tab that follows work in a process of its own: which one, how it stands, a button that stops it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gradio as gr

from tunesmith.config.schema import RunConfig
from tunesmith.core.errors import TunesmithError
from tunesmith.core.run_state import read_state
from tunesmith.recipes.queue import enqueue_config
from tunesmith.recipes.runs import resume, state_of, stop
from tunesmith.studio.choices import jobs
from tunesmith.studio.job_shown import job_page
from tunesmith.studio.run_actions import actions_of
from tunesmith.studio.shell import PRIVATE, Studio, told

_TICK_SECONDS = 1.0


@dataclass
class JobView:
    """The parts, and what they do.

    Attributes:
        studio: the page.
        commands: which work is listed.
        chooser: the run directory that is shown.
        panel: how it stands.
        settled: changes when the work that is shown has ended, or another one was chosen: `folder|time of its end`.
    """

    studio: Studio
    commands: tuple[str, ...]
    chooser: gr.Dropdown
    panel: gr.HTML
    stop: gr.Button
    resume: gr.Button
    timer: gr.Timer
    settled: gr.State

    @property
    def parts(self) -> list[Any]:
        """What `shown` gives updates for."""
        return [self.chooser, self.panel, self.stop, self.resume, self.timer, self.settled]

    def shown(self, folder: str | None, language: str) -> list[Any]:
        """Updates of `parts`: the work in `folder`, or the newest where none is named."""
        root = self.studio.workspace.root
        names = [self.studio.workspace.shown(run.folder) for run in jobs(self.studio.workspace, self.commands)]
        folder = folder or next(iter(names), None)
        if folder is None:
            gone = gr.update(interactive=False)
            return [gr.update(choices=[], value=None), job_page(root / "-", language), gone, gone, gr.skip(), ""]
        return [
            gr.update(choices=list(dict.fromkeys([*names, folder])), value=folder),
            *self._standing(folder, language),
        ]

    def _standing(self, folder: str, language: str) -> list[Any]:
        path = self.studio.workspace.inside(folder)
        state = read_state(path)
        is_active = state is not None and state.is_active
        can = actions_of(state, language)
        return [
            job_page(path, language),
            gr.update(interactive=can.stop),
            gr.update(interactive=can.resume),
            gr.update(active=is_active),
            "" if state is None or is_active else f"{folder}|{state.ended}",
        ]

    def ticked(self, folder: str | None, language: str) -> list[Any]:
        """The same for work that is shown already; other runs are not looked for."""
        if not folder:
            return self.shown(folder, language)
        return [gr.skip(), *self._standing(folder, language)]

    def start(self, config: RunConfig, language: str) -> list[Any]:
        """Puts work into the queue and shows it.

        Raises:
            TunesmithError: the configuration cannot be used, or the folder is in use.
        """
        folder = enqueue_config(Path(), config)
        return self.shown(self.studio.workspace.shown(folder), language)


def starters(studio: Studio, prefix: str, word: str) -> tuple[gr.Button, gr.Button, gr.HTML]:
    """A button that starts, one that shows the command instead, and where that is shown."""
    with gr.Row(elem_classes="ts-line"):
        start = gr.Button(variant="primary", size="md", min_width=120, elem_id=f"{prefix}-start")
        preview = gr.Button(size="md", min_width=120, elem_id=f"{prefix}-preview")
    shown = gr.HTML(elem_id=f"{prefix}-command", padding=False)
    return studio.worded(start, value=word), studio.worded(preview, value="command.button"), shown


def job_view(studio: Studio, prefix: str, commands: tuple[str, ...]) -> JobView:
    """Lays the parts out where it is called.

    Args:
        studio: the page.
        prefix: of the element ids.
        commands: which work is listed, as `RunState.command` says it.
    """
    with gr.Row(elem_classes="ts-line"):
        chooser = gr.Dropdown([], value=None, interactive=True, elem_id=f"{prefix}-job", scale=3, min_width=220)
        studio.worded(chooser, label="job.chooser")
        studio.lookouts.append(chooser)
        halt = gr.Button(variant="stop", size="sm", interactive=False, elem_id=f"{prefix}-stop", scale=0, min_width=96)
        again = gr.Button(size="sm", interactive=False, elem_id=f"{prefix}-resume", scale=0, min_width=96)
        studio.worded(halt, value="job.stop")
        studio.worded(again, value="job.resume")
    panel = gr.HTML(elem_id=f"{prefix}-panel", padding=False)
    view = JobView(studio, commands, chooser, panel, halt, again, gr.Timer(_TICK_SECONDS, active=False), gr.State(""))
    _connect(view)
    return view


def _connect(view: JobView) -> None:
    studio, given = view.studio, [view.chooser, view.studio.language]

    def acting(act: Callable[[Any], Any]) -> Callable[..., Any]:
        def act_on(folder: str | None, language: str) -> list[Any]:
            if not folder:
                raise TunesmithError("no run is chosen")
            act(state_of(str(studio.workspace.inside(folder)), Path()))
            return view.shown(folder, language)

        return told(act_on)

    view.timer.tick(told(view.ticked), given, view.parts, **PRIVATE)
    view.chooser.input(told(view.shown), given, view.parts, **PRIVATE)
    studio.follow_language(told(view.shown), given, view.parts)
    studio.page.load(told(view.shown), given, view.parts, **PRIVATE)
    view.stop.click(acting(stop), given, view.parts, **PRIVATE)
    view.resume.click(acting(lambda state: resume(state, Path())), given, view.parts, **PRIVATE)
