"""`template: auto`: the tokenizer's own chat template, with the mask found by comparing renderings.

An answer stands between the text of its prompt and the text up to the next message, if the whole conversation really
begins with both; that is verified for each conversation.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace

from tunesmith.core.errors import TemplateError
from tunesmith.core.types import Conversation, Segment
from tunesmith.data.auto_chat import GENERATION, AutoTemplate, Chat, auto_template
from tunesmith.data.settings import RenderSettings
from tunesmith.data.tools.base import SHIELD, bare, to_json

__all__ = ["AutoTemplate", "auto_template", "render_auto", "render_auto_prompt"]


def render_auto(template: AutoTemplate, conversation: Conversation, settings: RenderSettings) -> list[Segment]:
    """The whole conversation; an answer is trained from where its prompt ends to where the next message begins.

    Raises:
        TemplateError: the template refuses the conversation, or writes a trained answer differently once more messages
            follow and does not mark generated text itself.
    """
    chat = Chat.of(template, conversation, settings)
    full = chat.render(len(chat.messages), generation=False)
    _check_nothing_lost(full, conversation)
    wanted = _wanted(conversation, settings, chat.offset)
    spans = _spans(chat, full)
    missing = [index for index, trained in wanted.items() if trained and index not in spans]
    if missing:
        spans = _marked_spans(chat, full, missing[0] - chat.offset)
    cuts = [(start, end, wanted[index]) for index, (start, end) in sorted(spans.items())]
    return _segments(template, full, cuts, settings.train_on_prompt)


def render_auto_prompt(template: AutoTemplate, conversation: Conversation, settings: RenderSettings) -> list[Segment]:
    """The text up to where the model answers, cut at the same places as in `render_auto`; nothing is trained.

    Raises:
        TemplateError: the template refuses the conversation.
    """
    chat = Chat.of(template, conversation, settings)
    full = chat.render(len(chat.messages), generation=True)
    _check_nothing_lost(full, conversation)
    return _segments(template, full, [(*span, False) for _, span in sorted(_spans(chat, full).items())], False)


def _spans(chat: Chat, full: str) -> dict[int, tuple[int, int]]:
    """Where each answer stands in `full`: message index -> (start, end).

    An answer is left out when the text up to it, or up to its end, is not how `full` begins: then the template writes
    the past differently once more follows.
    """
    spans = {}
    for index, message in enumerate(chat.messages):
        if message["role"] != "assistant":
            continue
        start = chat.render(index, generation=True)
        end = chat.render(index + 1, generation=False)
        if full.startswith(end) and end.startswith(start):
            spans[index] = (len(start), len(end))
    return spans


def _check_nothing_lost(full: str, conversation: Conversation) -> None:
    """Many chat templates know no tools and pass over them without a word.

    Raises:
        TemplateError: tools, calls or results are not in the text.
    """
    text = full.replace(SHIELD, "")
    names = [str(bare(tool).get("name")) for tool in conversation.tools or ()]
    called = [call.name for message in conversation.messages for call in message.tool_calls]
    if not all(name in text for name in [*names, *called]):
        raise TemplateError(
            "template: auto: the tokenizer's chat template does not write tools; name a template that does"
        )
    results = [message.content.strip() for message in conversation.messages if message.role == "tool"]
    if not all(result in text or to_json(result)[1:-1] in text for result in results):
        raise TemplateError(
            "template: auto: the tokenizer's chat template does not write tool results; name a template"
        )


def _marked_spans(chat: Chat, full: str, first: int) -> dict[int, tuple[int, int]]:
    """Where the template's own generation blocks stand.

    Raises:
        TemplateError: there are none, or not one an answer.
    """
    answers = [index for index, message in enumerate(chat.messages) if message["role"] == "assistant"]
    if GENERATION.search(chat.template.text):
        spans = chat.generation_spans()
        if len(spans) == len(answers):
            return dict(zip(answers, spans, strict=True))
    raise TemplateError(
        f"template: auto: the tokenizer's chat template writes the answer in message {first + 1} otherwise at the "
        "end of a prompt than inside a longer conversation, so what would be learnt is not what would be generated; "
        "use mask_history: true (learn the last answer of each row), or name a template"
    )


def _wanted(conversation: Conversation, settings: RenderSettings, offset: int) -> dict[int, bool]:
    """Message index -> whether that answer carries loss."""
    messages = conversation.messages
    answers = [index for index, message in enumerate(messages) if message.role == "assistant"]
    wanted = {}
    for index in answers:
        by_default = settings.train_on_prompt or not settings.mask_history or index == answers[-1]
        chosen = messages[index].trained
        wanted[index + offset] = by_default if chosen is None else chosen
    if any(message.trained and message.role != "assistant" for message in messages):
        raise TemplateError("template: auto can train answers only; name a template to train other messages")
    return wanted


def _segments(
    template: AutoTemplate, full: str, cuts: Sequence[tuple[int, int, bool]], rest_trained: bool
) -> list[Segment]:
    """`full` cut at the answers; a piece that was broken becomes whole and is not literal."""
    segments: list[Segment] = []
    position = 0
    for start, end, trained in [*cuts, (len(full), len(full), False)]:
        segments += _pieces(template, full[position:start], rest_trained)
        segments += _pieces(template, full[start:end], trained)
        position = end
    return segments


def _pieces(template: AutoTemplate, text: str, trained: bool) -> list[Segment]:
    if SHIELD not in text:
        return [Segment(text, trained, breaks=True)] if text else []
    broken = "|".join(re.escape(name[0] + SHIELD + name[1:]) for name in template.guard.names)
    found = [piece for piece in enumerate(re.split(f"({broken})", text)) if piece[1]]
    first, *others = [Segment(piece.replace(SHIELD, ""), trained, literal=index % 2 == 0) for index, piece in found]
    return [replace(first, breaks=True), *others]
