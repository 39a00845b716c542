"""Conversation -> segments with their trained flags, for preview, training, chat, API, prediction and export alike.

Pure functions over frozen data. Token ids are made in `encode.py`, the tokenizer's own chat template is rendered in
`auto_template.py`; `render` and `render_prompt` take both kinds of template.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import date
from typing import Any

from tunesmith.core.errors import TemplateError
from tunesmith.core.types import Conversation, Message, Segment
from tunesmith.data.auto_template import AutoTemplate, render_auto, render_auto_prompt
from tunesmith.data.settings import RenderSettings, TokenNames, token_names
from tunesmith.data.template import BOS, CONTENT, EOS, Slot, Template, Token
from tunesmith.data.thinking import cut_thought, has_thought, join_thought
from tunesmith.data.tools import ToolFormat, load_tool_format
from tunesmith.data.tools.base import shield, split_marks

__all__ = [
    "RenderSettings",
    "TokenNames",
    "Turn",
    "render",
    "render_prompt",
    "render_turn",
    "render_turns",
    "token_names",
]

Pieces = list[tuple[str, bool]]
"""Text of a slot: (piece, literal)."""


@dataclass(frozen=True, slots=True)
class Turn:
    """A prompt and the answer to it, each with its trained flags; `answer` is empty where the model is to write it."""

    prompt: tuple[Segment, ...]
    answer: tuple[Segment, ...]


@dataclass(frozen=True, slots=True)
class _Exchange:
    """Messages of one turn before they are rendered."""

    asked: tuple[Message, ...]
    answer: Message | None


@dataclass(frozen=True, slots=True)
class _Writer:
    """What stays the same while one conversation is rendered."""

    template: Template
    settings: RenderSettings
    tokens: TokenNames

    @property
    def tool_format(self) -> ToolFormat:
        return load_tool_format(self.settings.tool_format or self.template.tool_format)


def render(
    template: Template | AutoTemplate, conversation: Conversation, settings: RenderSettings, tokens: TokenNames
) -> list[Segment]:
    """The whole conversation with its trained flags.

    Thoughts of earlier turns stay, unless `mask_history` is on and `preserve_thinking` off: then they are cut as
    `render_prompt` cuts them. With `efficient_eos` the eos at the very end is a segment, and an empty trained segment
    after each earlier trained answer says that the next token's label is eos.

    Raises:
        TemplateError: the order of roles cannot be written, or a setting does not fit the template.
    """
    if isinstance(template, AutoTemplate):
        return render_auto(template, conversation, settings)
    return [
        part for turn in render_turns(template, conversation, settings, tokens) for part in turn.prompt + turn.answer
    ]


def render_prompt(
    template: Template | AutoTemplate, conversation: Conversation, settings: RenderSettings, tokens: TokenNames
) -> list[Segment]:
    """The text up to where the model answers; nothing in it is trained. The last message is not the assistant's.

    Thoughts of earlier turns are cut unless `preserve_thinking`; with `enable_thinking` false or None the empty thought
    ends the prompt of a family that reasons.

    Raises:
        TemplateError: the last message is the assistant's, or the order of roles cannot be written.
    """
    if conversation.messages and conversation.messages[-1].role == "assistant":
        raise TemplateError("a prompt ends with a user or tool message; the last message here is the assistant's")
    if isinstance(template, AutoTemplate):
        return render_auto_prompt(template, conversation, settings)
    return render_turn(template, conversation, settings, tokens)[0]


def render_turn(
    template: Template, conversation: Conversation, settings: RenderSettings, tokens: TokenNames
) -> tuple[list[Segment], list[Segment]]:
    """Everything before the last answer, and that answer (its segments trained), as for DPO, KTO and prediction.

    Unlike `render`, an earlier answer without a thought gets no empty one; where the answer is known and holds a
    thought of its own, `enable_thinking: null` writes no empty thought at the end of the prompt.
    """
    writer = _Writer(template, settings, tokens)
    system, exchanges = _exchanges(conversation)
    prompt: list[Segment] = []
    last = len(exchanges) - 1
    for index, exchange in enumerate(exchanges):
        asked = _asked(writer, exchange, _head(writer, conversation, system) if index == 0 else None)
        keep = settings.preserve_thinking if index < last else settings.enable_thinking is not False
        text = _answer_text(template, exchange.answer, keep)
        if index < last:
            prompt += asked + _answer(writer, exchange.answer, text)
            continue
        before, inside = _empty_thoughts(writer, exchange.answer, text)
        answer = inside + _answer(writer, exchange.answer, text) + _end(writer, exchange.answer)
        return prompt + asked + before, [replace(part, trained=True) for part in answer]
    raise AssertionError("a conversation without turns was let through")


def render_turns(
    template: Template, conversation: Conversation, settings: RenderSettings, tokens: TokenNames
) -> list[Turn]:
    """`render`, turn by turn, for the length budget that cuts prompt and answer of each turn."""
    if settings.train_on_prompt and template.efficient_eos:
        raise TemplateError(
            f"train_on_prompt cannot be used with the template {template.name!r}: its turns end in no token"
        )
    writer = _Writer(template, settings, tokens)
    system, exchanges = _exchanges(conversation)
    discard = settings.mask_history and not settings.preserve_thinking
    turns = []
    for index, exchange in enumerate(exchanges):
        is_last = index == len(exchanges) - 1
        prompt = _asked(writer, exchange, _head(writer, conversation, system) if index == 0 else None)
        keep = settings.enable_thinking is not False and (is_last or not discard)
        text = _answer_text(template, exchange.answer, keep)
        before, inside = _empty_thoughts(writer, exchange.answer, text) if is_last or not discard else ([], [])
        answer = inside + _answer(writer, exchange.answer, text) + (_end(writer, exchange.answer) if is_last else [])
        if template.efficient_eos and not is_last and tokens.eos:
            answer.append(Segment("", breaks=True))
        turns.append(_with_flags(exchange, prompt + before, answer, settings, is_last, system if index == 0 else None))
    return turns


def _with_flags(
    exchange: _Exchange,
    prompt: list[Segment],
    answer: list[Segment],
    settings: RenderSettings,
    is_last: bool,
    system: Message | None,
) -> Turn:
    chosen = [message.trained for message in (*exchange.asked, *([system] if system else []))]
    asks = True in chosen or (settings.train_on_prompt and False not in chosen)
    answers = is_last or not settings.mask_history or settings.train_on_prompt
    if exchange.answer is not None and exchange.answer.trained is not None:
        answers = exchange.answer.trained
    return Turn(
        tuple(replace(part, trained=asks) for part in prompt), tuple(replace(part, trained=answers) for part in answer)
    )


def _exchanges(conversation: Conversation) -> tuple[Message | None, list[_Exchange]]:
    """Groups messages into turns: one user message or the results of one set of calls, then the answer."""
    messages = conversation.messages
    system = messages[0] if messages and messages[0].role == "system" else None
    exchanges: list[_Exchange] = []
    asked: list[Message] = []
    for index, message in enumerate(messages[1:] if system else messages, 2 if system else 1):
        if message.role == "assistant" and asked:
            exchanges.append(_Exchange(tuple(asked), message))
            asked = []
        elif message.role == "user" and not asked:
            asked = [message]
        elif message.role == "tool" and (not asked or asked[-1].role == "tool"):
            asked.append(message)
        else:
            raise TemplateError(
                f"message {index} cannot be the {message.role}'s here: turns go user or tool, assistant, ..."
            )
    if asked:
        exchanges.append(_Exchange(tuple(asked), None))
    if not exchanges:
        raise TemplateError("the conversation has no user message")
    return system, exchanges


def _head(writer: _Writer, conversation: Conversation, system: Message | None) -> tuple[list[Segment], Pieces]:
    """What the first turn begins with: (segments before it, pieces inside the first user text)."""
    template, settings = writer.template, writer.settings
    fallback = template.default_system if settings.default_system is None else settings.default_system
    text = (system.content if system else "") or fallback
    pieces: Pieces = [(text, False)] if text else []
    tools = conversation.tools
    if tools is not None and (tools or settings.compat):
        pieces += _tools_pieces(writer, tools, bare_system=not text)
    elif not text:
        return _segments(template.prefix, [], writer.tokens), []
    prefix = _segments(template.prefix, [], writer.tokens)
    if template.kind == "system_in_first_user":
        return prefix, _filled(template.system, pieces)
    return prefix + _segments(template.system, pieces, writer.tokens), []


def _tools_pieces(writer: _Writer, tools: Sequence[dict[str, Any]], bare_system: bool) -> Pieces:
    tool_format = writer.tool_format
    if not tools and not tool_format.describes_none:
        return []
    text = tool_format.tools_text(shield(tools, tool_format.marks), writer.settings.today or date.today())
    if bare_system and writer.template.kind == "plain_lstrip_tools_without_system":
        text = text.lstrip()
    return split_marks(text, tool_format.marks)


def _asked(writer: _Writer, exchange: _Exchange, head: tuple[list[Segment], Pieces] | None) -> list[Segment]:
    template = writer.template
    before, pieces = head or ([], [])
    for index, message in enumerate(exchange.asked):
        if index:
            pieces = [*pieces, (template.observation_join, True)]
        pieces = [*pieces, (message.content, False)]
    is_user = exchange.asked[0].role == "user"
    return before + _segments(template.user if is_user else template.observation, pieces, writer.tokens)


def _answer_text(template: Template, answer: Message | None, keep_thought: bool) -> str:
    if answer is None:
        return ""
    text = join_thought(answer.reasoning_content, answer.content, template.thought_words)
    return cut_thought(text, template.thought_words) if template.reasons and not keep_thought else text


def _empty_thoughts(writer: _Writer, answer: Message | None, text: str) -> tuple[list[Segment], list[Segment]]:
    """Where the empty thought goes: (end of the prompt, start of the answer)."""
    template = writer.template
    if not template.reasons or has_thought(text, template.thought_words):
        return [], []
    empty = [Segment(template.empty_thought, breaks=True)]
    if writer.settings.enable_thinking:
        return [], empty if answer is not None else []
    return empty, []


def _answer(writer: _Writer, answer: Message | None, text: str) -> list[Segment]:
    template = writer.template
    if answer is None:
        return []
    pieces = split_marks(text, [word.strip() for word in (*template.thought_words, *template.tool_call_words)])
    if not answer.tool_calls:
        return _segments(template.assistant, pieces, writer.tokens)
    if text and not text.endswith(("\n", template.thought_words[1])):
        pieces.append(("\n", False))
    tool_format = writer.tool_format
    calls = [replace(call, arguments=shield(call.arguments, tool_format.marks)) for call in answer.tool_calls]
    pieces += split_marks(tool_format.calls_text(calls, writer.settings.compat), tool_format.marks)
    return _segments(template.function, pieces, writer.tokens)


def _end(writer: _Writer, answer: Message | None) -> list[Segment]:
    has_end = writer.template.efficient_eos and answer is not None and writer.tokens.eos
    return [Segment(writer.tokens.eos or "", breaks=True)] if has_end else []


def _filled(slot: Slot, pieces: Pieces) -> Pieces:
    """The slot's one text with the pieces in the place of the content."""
    head, _, tail = "".join(element for element in slot if isinstance(element, str)).partition(CONTENT)
    return [(head, True), *pieces, (tail, True)]


def _segments(slot: Slot, pieces: Pieces, tokens: TokenNames) -> list[Segment]:
    """The slot with its content filled in; each element of the slot breaks."""
    segments: list[Segment] = []
    for element in slot:
        if isinstance(element, Token):
            name = {BOS: tokens.bos, EOS: tokens.eos}.get(element.name, element.name)
            segments += [Segment(name, breaks=True)] if name else []
            continue
        parts = _filled((element,), pieces) if CONTENT in element else [(element, True)]
        written = [Segment(text, literal=literal) for text, literal in parts if text]
        if written:
            segments += [replace(written[0], breaks=True), *written[1:]]
    return segments
