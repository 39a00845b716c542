"""The chat tab of the studio: a run or checkpoint answers, or two of them the same question beside each other."""

from __future__ import annotations

from typing import Any

import gradio as gr

from tunesmith.config.load import load_keys
from tunesmith.config.schema import RunConfig
from tunesmith.studio.chat import chat
from tunesmith.studio.choices import model_keys, said
from tunesmith.studio.key_fields import key_fields
from tunesmith.studio.model_choice import lay_style, model_choice
from tunesmith.studio.seat import ModelSeat
from tunesmith.studio.shell import Studio
from tunesmith.studio.workspace import Workspace

_LOADING = ("infer_backend", "infer_dtype")


def chat_config(
    workspace: Workspace, model: str | None, run: str | None, template: str | None, fields: dict[str, Any]
) -> RunConfig:
    """What is loaded.

    Args:
        workspace: guards paths.
        model: name or folder, where no run is chosen.
        run: folder of a run or checkpoint.
        template: where no run is chosen.
        fields: further keys.

    Raises:
        TunesmithError: nothing is chosen, a path is outside, or the configuration cannot be used.
    """
    return load_keys({**model_keys(workspace, model, run, template), **said(fields)}, "webchat")


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
    with studio.worded(gr.Accordion(open=False, elem_id="chat-loading"), label="chat.more"):
        fields = key_fields(studio, _LOADING, "chat")

    def config_of(model: Any, run: Any, template: Any, second: Any, *values: Any) -> tuple[RunConfig, RunConfig | None]:
        more = dict(zip(_LOADING, values, strict=True))
        first = chat_config(studio.workspace, model, run, template, more)
        return first, chat_config(studio.workspace, None, second, None, more) if second else None

    inputs = [*choice.inputs, second, *fields.values()]
    chat(studio.page, seat or ModelSeat(), config_of, inputs, studio=studio, sides=2)
