"""Does a named template write what the tokenizer's own chat template writes? Probe conversations, token by token."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from tunesmith.core.errors import TemplateError
from tunesmith.core.types import Conversation, Message
from tunesmith.data.auto_template import auto_template
from tunesmith.data.encode import encode
from tunesmith.data.render import render_prompt
from tunesmith.data.settings import RenderSettings, token_names
from tunesmith.data.template import Template

PLAIN_TEXT = ("default", "alpaca", "vicuna", "empty", "fewshot")
"""Frames of no single model; tutorials put them on chat models, too."""

_USER, _AGAIN = Message("user", "Hello, who are you?"), Message("user", "And in two words?")
_SYSTEM, _ANSWER = Message("system", "Answer in one short line."), Message("assistant", "A model.")
PROBES = {
    "system text": Conversation((_SYSTEM, _USER)),
    "two turns": Conversation((_SYSTEM, _USER, _ANSWER, _AGAIN)),
    "two turns without system text": Conversation((_USER, _ANSWER, _AGAIN)),
    "no system text": Conversation((_USER,)),
}
_SHOWN, _BEFORE = 8, 3


@dataclass(frozen=True, slots=True)
class Difference:
    """Where two renderings of one conversation part.

    Attributes:
        probe: which conversation.
        ours: ids that the template gives.
        theirs: ids that the tokenizer's own chat template gives.
    """

    probe: str
    ours: tuple[int, ...]
    theirs: tuple[int, ...]

    def lines(self, tokenizer: Any, name: str, other: str = "the model's own") -> list[str]:
        """The first differing tokens, one line a side, each with its name."""
        pairs = zip(self.ours, self.theirs, strict=False)
        shorter = min(len(self.ours), len(self.theirs))
        place = next((index for index, (a, b) in enumerate(pairs) if a != b), shorter)
        start, stop = max(place - _BEFORE, 0), place + _SHOWN
        width = max(len(name), len(other))
        return [
            f"  {label:<{width}}  token {place + 1}: {_shown(tokenizer, ids[start:place])}>> "
            f"{_shown(tokenizer, ids[place:stop])}"
            for label, ids in ((name, self.ours), (other, self.theirs))
        ]


def _shown(tokenizer: Any, ids: tuple[int, ...]) -> str:
    return "".join(f"{tokenizer.decode([index])!r} " for index in ids)


def differences(
    template: Template, tokenizer: Any, settings: RenderSettings, *, with_default: bool = False
) -> list[Difference]:
    """The probe conversations that the template and the tokenizer's own chat template write otherwise.

    A probe that the chat template refuses is passed over. Default system texts are compared only where asked: they are
    a choice of the user, and a table of models knows families, not versions.
    """
    own = auto_template(tokenizer)
    plain = replace(
        settings, default_system=None, enable_thinking=settings.enable_thinking is not False, tool_format=None
    )
    found = []
    compared = 0
    for probe, conversation in PROBES.items():
        has_system = conversation.messages[0].role == "system"
        if not has_system and template.default_system and compared and not with_default:
            continue
        try:
            theirs = _prompt_ids(own, conversation, tokenizer, plain)
        except TemplateError:
            continue
        ours = _prompt_ids(template, conversation, tokenizer, plain)
        compared += 1
        if ours != theirs:
            found.append(Difference(probe, ours, theirs))
    return found


def _prompt_ids(template: Any, conversation: Conversation, tokenizer: Any, settings: RenderSettings) -> tuple[int, ...]:
    segments = render_prompt(template, conversation, settings, token_names(tokenizer, template))
    return tuple(encode(segments, tokenizer, template)[0])


def is_same_frame(difference: Difference, tokenizer: Any) -> bool:
    """Whether both sides are built of the same marks, so that only texts between them differ."""
    added = set(tokenizer.added_tokens_decoder) - {tokenizer.bos_token_id}
    marks = {index for index in difference.ours if index in added}
    return bool(marks) and marks == {index for index in difference.theirs if index in added}
