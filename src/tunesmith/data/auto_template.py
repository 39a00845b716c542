"""`template: auto`: the tokenizer's own chat template, with the mask found by comparing renderings.

An answer stands between the text of its prompt and the text up to the next message, if the whole conversation really
begins with both; that is verified for each conversation.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from tunesmith.core.errors import TemplateError
from tunesmith.core.types import Conversation, Message, Segment
from tunesmith.data.auto_chat import ANSWER_MARK, GENERATION, AutoTemplate, Chat, auto_template
from tunesmith.data.settings import RenderSettings
from tunesmith.data.thinking import part_thought
from tunesmith.data.tools.base import SHIELD, bare, to_json

_MARK = "\ue0f2"
"""Stands for an answer whose place is looked for."""
_ENDING = 12
"""Characters at the end of a prompt by which that end is found again, where there is no mark."""

__all__ = ["AutoTemplate", "auto_template", "render_auto", "render_auto_prompt"]


def render_auto(template: AutoTemplate, conversation: Conversation, settings: RenderSettings) -> list[Segment]:
    """The whole conversation; an answer is trained from where its prompt ends to where the next message begins.

    Where the template writes the past differently once more follows, and does not mark generated text itself, answers
    that no longer stand behind their own prompt carry no loss. If the last one is among them (a system text that moves
    to the last user message), the text is the prompt of the last answer, and that answer.

    Raises:
        TemplateError: the template refuses the conversation, or no answer that is to be learnt can be told from it.
    """
    if settings.enable_thinking is False and "enable_thinking" in template.text:
        conversation = _without_thoughts(template, conversation)
    chat = Chat.of(template, conversation, settings)
    full = chat.render(len(chat.messages), generation=False)
    _check_nothing_lost(full, conversation)
    _check_beside_calls(full, chat)
    wanted = _wanted(conversation, settings, chat.offset)
    spans = _spans(chat, full)
    missing = [index for index, trained in wanted.items() if trained and index not in spans]
    if missing:
        full, spans = _mended(chat, full, spans, missing)
        insisted = [index for index in missing if _message_at(conversation, chat, index).trained]
        learnt = [index for index, trained in wanted.items() if trained and index in spans]
        if not learnt or set(insisted) - set(spans):
            raise _unstable((insisted or missing)[0] - chat.offset)
    cuts = [(start, end, wanted[index]) for index, (start, end) in sorted(spans.items())]
    return _segments(template, full, cuts, settings.train_on_prompt)


def _message_at(conversation: Conversation, chat: Chat, index: int) -> Message:
    """The message that stands at a place of the chat."""
    return conversation.messages[index - chat.offset]


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

    An answer is left out when the text up to it is not how `full` begins: then it was another prompt. It is left out,
    too, when something of it is missing: then the template writes the past differently once more follows.
    """
    spans = {}
    for index, message in enumerate(chat.messages):
        if message["role"] != "assistant":
            continue
        start = chat.render(index, generation=True)
        if not full.startswith(start):
            continue
        alone = chat.render(index + 1, generation=False)
        if full.startswith(alone) and alone.startswith(start):
            spans[index] = (len(start), len(alone))
        elif end := _end_of(chat, full, len(start), alone, message):
            spans[index] = (len(start), end)
    return spans


def _end_of(chat: Chat, full: str, start: int, alone: str, message: Mapping[str, Any]) -> int | None:
    """Where an answer ends that was written a little otherwise (without an empty thought), but whole; else None."""
    position = start
    for piece, is_control in chat.template.guard.split(full[start:]):
        position += len(piece)
        if is_control and not ANSWER_MARK.fullmatch(piece):
            break
    else:
        return None
    answer = full[start:position]
    texts = [message.get(key) or "" for key in ("content", "reasoning_content")]
    if not all(text.strip() in answer for text in texts):
        return None
    blank = alone[len(alone.rstrip()) :]
    return position + len(blank) * full.startswith(blank, position)


def _mended(
    chat: Chat, full: str, spans: dict[int, tuple[int, int]], missing: Sequence[int]
) -> tuple[str, dict[int, tuple[int, int]]]:
    """The text and its answers once more, by the template's own generation blocks, or for the last answer alone."""
    answers = [index for index, message in enumerate(chat.messages) if message["role"] == "assistant"]
    if GENERATION.search(chat.template.text):
        marked = chat.generation_spans()
        if len(marked) == len(answers):
            return full, dict(zip(answers, marked, strict=True))
    last = len(chat.messages) - 1
    if answers[-1] != last or last not in missing:
        return full, spans
    prompt = chat.render(last, generation=True)
    answer = _last_answer(chat, full, prompt)
    if not answer:
        return full, spans
    return prompt + answer, _spans(chat, prompt) | {last: (len(prompt), len(prompt) + len(answer))}


def _last_answer(chat: Chat, full: str, prompt: str) -> str | None:
    """The last answer as `full` writes it behind another prompt: it begins where the end of the prompt is found."""
    marked = replace(chat, messages=[*chat.messages[:-1], {**chat.messages[-1], "content": _MARK}])
    head, found, _ = marked.render(len(chat.messages), generation=False).partition(_MARK)
    ending = _ending(chat, prompt)
    place = head.rfind(ending)
    if not found or place < 0 or not full.startswith(head):
        return None
    return full[place + len(ending) :]


def _ending(chat: Chat, prompt: str) -> str:
    """The last mark of a prompt and what follows it."""
    tail = ""
    for piece, is_control in reversed(chat.template.guard.split(prompt)):
        tail = piece + tail
        if is_control:
            return tail
    return prompt[-_ENDING:]


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


def _check_beside_calls(full: str, chat: Chat) -> None:
    """Some chat templates leave out what is said beside calls.

    Raises:
        TemplateError: it is in the row and not in the text.
    """
    text = full.replace(SHIELD, "")
    said = [message["content"] or "" for message in chat.plain if message.get("tool_calls")]
    if not all(words.strip() in text for words in said):
        raise TemplateError(
            "template: auto: the tokenizer's chat template leaves out the text beside a tool call; name a template"
        )


def _without_thoughts(template: AutoTemplate, conversation: Conversation) -> Conversation:
    def cut(message: Message) -> Message:
        _, content = part_thought(message.reasoning_content, message.content, template.thought_words)
        return replace(message, content=content, reasoning_content=None)

    messages = conversation.messages
    return replace(conversation, messages=tuple(cut(item) if item.role == "assistant" else item for item in messages))


def _unstable(index: int) -> TemplateError:
    return TemplateError(
        f"template: auto: the tokenizer's chat template writes the answer in message {index + 1} otherwise at the "
        "end of a prompt than inside a longer conversation, so what would be learnt is not what would be generated; "
        "leave that answer untrained, or name a template"
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
