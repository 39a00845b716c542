"""Keys of the configuration as fields of a tab: kind, bounds and choices come from the schema, help from the words."""

from __future__ import annotations

from typing import Any

import gradio as gr

from tunesmith.config.schema import KEYS
from tunesmith.studio.shell import Studio


def key_field(studio: Studio, name: str, prefix: str, value: Any = None, **facts: Any) -> Any:
    """A field whose label is the key.

    Args:
        studio: the page.
        name: of the key.
        prefix: of the element id.
        value: what it shows; default: the key's own.
        **facts: further properties of the component.
    """
    known = KEYS[name]
    shown = known.default if value is None else value
    given: dict[str, Any] = {"label": name, "elem_id": f"{prefix}-{name}", "interactive": True, "min_width": 190}
    if known.is_bool:
        part: Any = gr.Checkbox(bool(shown), **(given | facts))
    elif known.choices or "choices" in facts:
        choices = facts.pop("choices", [*known.choices])
        part = gr.Dropdown(choices, value=shown, **(given | facts))
    elif set(known.kinds) <= {"int", "float"}:
        whole = known.kinds == ("int",)
        part = gr.Number(shown, precision=0 if whole else None, minimum=known.bounds.get("ge"), **(given | facts))
    else:
        text = ",".join(shown) if isinstance(shown, tuple | list) else shown or ""
        part = gr.Textbox(text, lines=1, max_lines=4, **(given | facts))
    return studio.worded(part, info=f"field.{name}")


def key_fields(studio: Studio, names: tuple[str, ...], prefix: str, **values: Any) -> dict[str, Any]:
    """Several fields, beside each other as there is room: key -> component."""
    with gr.Row(elem_classes="ts-fields"):
        return {name: key_field(studio, name, prefix, values.get(name)) for name in names}
