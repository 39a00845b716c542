"""The chat tab of the studio: a run or checkpoint answers, or two of them the same question beside each other."""

from __future__ import annotations

from typing import Any

import gradio as gr

from tunesmith.config.schema import RunConfig
from tunesmith.studio.chat import chat
from tunesmith.studio.choices import model_keys
from tunesmith.studio.controls import CONTROLLED
from tunesmith.studio.form import Said, tab_config
from tunesmith.studio.key_form import advanced_form, clean
from tunesmith.studio.model_choice import MODEL_KEYS, lay_style, model_choice
from tunesmith.studio.seat import ModelSeat
from tunesmith.studio.shell import Studio
from tunesmith.studio.workspace import Workspace


def chat_config(
    workspace: Workspace, model: str | None, run: str | None, template: str | None, more: Said | None = None
) -> RunConfig:
    """What is loaded.

    Args:
        workspace: guards paths.
        model: name or folder, where no run is chosen.
        run: folder of a run or checkpoint.
        template: where no run is chosen.
        more: what was set under Advanced.

    Raises:
        TunesmithError: nothing is chosen, a path is outside, or the configuration cannot be used.
    """
    return tab_config(workspace, "webchat", model_keys(workspace, model, run, template), more)


def chat_tab(studio: Studio, seat: ModelSeat | None = None) -> None:
    """Lays the tab out where it is called.

    Args:
        studio: the page.
        seat: holds the model; one of its own without it.
    """
    lay_style()
    with gr.Row(elem_classes="ts-fields"):
        choice = model_choice(studio, "chat")
        second = studio.run_chooser("chat-second")
        studio.worded(second, label="chat.second")
    more = advanced_form(studio, "chat", {"webchat": (*MODEL_KEYS, *CONTROLLED)})

    def config_of(model: Any, run: Any, template: Any, second: Any, more: Any) -> tuple[RunConfig, RunConfig | None]:
        first = chat_config(studio.workspace, model, run, template, clean(more))
        return first, chat_config(studio.workspace, None, second, None, clean(more)) if second else None

    inputs = [*choice.inputs, second, more]
    chat(studio.page, seat or ModelSeat(), config_of, inputs, studio=studio, sides=2)
