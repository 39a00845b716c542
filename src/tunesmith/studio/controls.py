"""The generation keys as controls of a page: shown, and read back into SamplingParams."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import gradio as gr

from tunesmith.inference.engine import SamplingParams

if TYPE_CHECKING:
    from gradio.components import Component

_NUMBERS: dict[str, tuple[float, float | None, float]] = {
    "max_new_tokens": (1, None, 1),
    "temperature": (0, 100, 0.05),
    "top_p": (0.01, 1, 0.05),
    "top_k": (0, None, 1),
    "repetition_penalty": (0.01, 10, 0.05),
    "seed": (0, None, 1),
}
"""Key -> least, most, step."""
_EMPTY = {"seed": "chat.by_chance"}
"""What an emptied field means, where it is not the default."""
CONTROLLED = (*_NUMBERS, "stop")
"""Keys that have a control."""


def generation_controls(sampling: SamplingParams, worded: Callable[..., Any]) -> list[Component]:
    """One control a key, two beside each other, with the values of `sampling`.

    Args:
        sampling: what they begin with.
        worded: gives a component its texts.
    """
    now = dict(zip(CONTROLLED, values_of(sampling), strict=True))
    controls: list[Component] = []
    names = list(_NUMBERS)
    for pair in zip(names[::2], names[1::2], strict=True):
        with gr.Row():
            controls += [
                worded(_number(name, now[name]), placeholder=_EMPTY.get(name, "chat.default")) for name in pair
            ]
    stop = gr.Textbox(now["stop"], label="stop", elem_id="chat-stop-texts")
    return [*controls, worded(stop, placeholder="chat.one_a_line")]


def _number(name: str, value: float | None) -> Component:
    least, most, step = _NUMBERS[name]
    return gr.Number(
        value,
        label=name,
        minimum=least,
        maximum=most,
        step=step,
        precision=0 if step == 1 else None,
        min_width=100,
        elem_id=f"chat-{name}",
    )


def values_of(sampling: SamplingParams) -> list[Any]:
    """What the controls show; a temperature of 0 says that nothing is drawn."""
    temperature = sampling.temperature if sampling.do_sample else 0.0
    shown = {"temperature": temperature, "top_k": max(0, sampling.top_k), "stop": "\n".join(sampling.stop)}
    return [shown.get(name, getattr(sampling, name)) for name in CONTROLLED]


def sampling_of(values: Sequence[Any], defaults: SamplingParams) -> SamplingParams:
    """What the controls say; a number that was emptied is as in `defaults`, an empty seed draws by chance."""
    given = {name: value for name, value in zip(CONTROLLED, values, strict=True) if value is not None or name == "seed"}
    given["do_sample"] = given.get("temperature", 0.0) > 0
    given["stop"] = tuple(line for line in str(given.get("stop", "")).split("\n") if line)
    return replace(defaults, **given)
