"""What is written of each answer: its thought, an empty one or none; by LLaMA-Factory's rules and by official ones.

The frame around an answer is `render.py`'s business.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tunesmith.core.types import Message
from tunesmith.data.settings import RenderSettings
from tunesmith.data.template import Template
from tunesmith.data.thinking import cut_thought, has_thought, join_thought, part_thought


@dataclass(frozen=True, slots=True)
class Written:
    """One answer as it is written.

    Attributes:
        before: what the template adds at the end of the prompt.
        inside: what it adds at the start of the answer.
        text: the answer with the thought that it keeps.
        is_served: the prompt before it is the one of a chat at this turn, and nothing of the answer was left out.
    """

    before: str = ""
    inside: str = ""
    text: str = ""
    is_served: bool = True


def write_answers(
    template: Template,
    answers: Sequence[Message | None],
    first_recent: int,
    settings: RenderSettings,
    training: bool,
) -> list[Written]:
    """The answers of a conversation, in order; None is the answer that is to be written.

    Args:
        template: whose rules.
        answers: one a turn.
        first_recent: the turn of the last user message; answers from there on keep their thoughts.
        settings: choices of the run.
        training: for `render_turns`; False: for a prompt and its last answer. Official rules do not tell them apart.
    """
    if not template.reasons:
        return [Written(text=_joined(template, answer)) for answer in answers]
    last = len(answers) - 1
    if template.drops_thoughts:
        return [
            _official(template, answer, settings, index == last, index >= first_recent)
            for index, answer in enumerate(answers)
        ]
    discards = settings.mask_history and not settings.preserve_thinking
    written = []
    for index, answer in enumerate(answers):
        is_last = index == last
        if training:
            keeps, fills = settings.enable_thinking is not False and (is_last or not discards), is_last or not discards
        else:
            keeps, fills = settings.enable_thinking is not False if is_last else settings.preserve_thinking, is_last
        if template.empty_thoughts != "all" and not settings.compat:
            keeps = settings.enable_thinking is not False
        written.append(_plain(template, answer, settings, keeps, fills))
    return written


def _joined(template: Template, answer: Message | None) -> str:
    if answer is None:
        return ""
    text = join_thought(answer.reasoning_content, answer.content, template.thought_words)
    return text.strip() if "assistant" in template.strip else text


def _plain(template: Template, answer: Message | None, settings: RenderSettings, keeps: bool, fills: bool) -> Written:
    text = _joined(template, answer)
    if answer is not None and not keeps:
        text = cut_thought(text, template.thought_words)
    if not fills or has_thought(text, template.thought_words):
        return Written(text=text)
    if not settings.enable_thinking:
        return Written(before=template.empty_thought, text=text)
    writes = answer is not None and template.empty_thoughts != "never"
    return Written(inside=template.empty_thought if writes else "", text=text)


def _official(
    template: Template, answer: Message | None, settings: RenderSettings, is_last: bool, is_recent: bool
) -> Written:
    """Thoughts stay from the last user message on; only the last answer may get an empty one."""
    words, thinks = template.thought_words, settings.enable_thinking
    if answer is None:
        return Written(before="" if thinks else template.empty_thought)
    thought, content = part_thought(answer.reasoning_content, answer.content, words)
    content = content.strip() if "assistant" in template.strip else content
    keeps = thinks is not False and (is_recent or settings.preserve_thinking)
    if thought and keeps:
        return Written(text=f"{words[0]}{thought}{words[1]}{content.lstrip(chr(10))}")
    if not is_last:
        return Written(text=content, is_served=bool(thinks) and not thought)
    if not thinks:
        return Written(before=template.empty_thought, text=content.lstrip("\n"))
    if template.empty_thoughts == "never":
        return Written(text=content)
    return Written(inside=template.empty_thought, text=content.lstrip("\n"))
