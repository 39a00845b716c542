"""The part of a tab that chooses a model: a run or checkpoint of the workspace, or a model by name with a template."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import gradio as gr

from tunesmith.studio.choices import FIRST_MODEL, model_names, template_choices
from tunesmith.studio.markup import style
from tunesmith.studio.shell import PRIVATE, Studio

MODEL_KEYS = ("model_name_or_path", "template")
"""Keys that `model_choice` and `model_and_template` have controls for."""


def lay_style() -> None:
    """The style of HTML that tabs make themselves; once in each tab, for a tab is laid out when it is opened."""
    gr.HTML(f"<style>{style()}</style>", padding=False, elem_classes="ts-style")


@dataclass(frozen=True)
class ModelChoice:
    """The parts.

    Attributes:
        run: folder of a run or checkpoint, or nothing.
        model: name or folder; counts without a run.
        template: counts without a run.
    """

    run: gr.Dropdown
    model: gr.Dropdown
    template: gr.Dropdown

    @property
    def inputs(self) -> list[Any]:
        """As `choices.model_keys` takes them."""
        return [self.model, self.run, self.template]


def model_choice(studio: Studio, prefix: str) -> ModelChoice:
    """Lays the parts out where it is called, within a Row or Column."""
    run = studio.run_chooser(f"{prefix}-run")
    model, template = model_and_template(studio, prefix, "choice.other_model")

    def toggled(chosen: str | None) -> list[Any]:
        return [gr.update(interactive=not chosen)] * 2

    run.change(toggled, run, [model, template], **PRIVATE)
    return ModelChoice(run, model, template)


def model_and_template(studio: Studio, prefix: str, label: str = "choice.model") -> tuple[gr.Dropdown, gr.Dropdown]:
    """A model by name and its template."""
    model = gr.Dropdown(
        model_names(studio.workspace),
        value=FIRST_MODEL,
        allow_custom_value=True,
        interactive=True,
        elem_id=f"{prefix}-model",
        min_width=180,
    )
    template = gr.Dropdown(
        template_choices(), value="auto", interactive=True, elem_id=f"{prefix}-template", min_width=130
    )

    def fresh() -> Any:
        return gr.update(choices=model_names(studio.workspace))

    model.focus(fresh, None, model, **PRIVATE)
    studio.worded(model, label=label)
    return model, studio.worded(template, label="choice.template")
