"""Conversation -> segments with their trained flags, for preview, training, chat, API, prediction and export alike.

Pure functions over frozen data. Token ids are made in `encode.py`, the tokenizer's own chat template is rendered in
`auto_template.py`; `render` and `render_prompt` take both kinds of template.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import date
from typing import Any

from tunesmith.core.errors import TemplateError
from tunesmith.core.types import Conversation, Message, Segment
from tunesmith.data.answers import write_answers
from tunesmith.data.auto_template import AutoTemplate, render_auto, render_auto_prompt
from tunesmith.data.call_ids import call_ids
from tunesmith.data.settings import RenderSettings, TokenNames, token_names
from tunesmith.data.template import BOS, CALL_ID, CONTENT, EOS, Slot, Template, Token
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


@dataclass(slots=True)
class _Asked:
    """A message with the ids of its calls, or of the call that it answers."""

    message: Message
    ids: tuple[str, ...]


@dataclass(slots=True)
class _Exchange:
    """Messages of one turn before they are rendered."""

    asked: tuple[_Asked, ...]
    answer: Message | None
    call_ids: tuple[str, ...] = ()

    @property
    def is_user(self) -> bool:
        return self.asked[0].message.role == "user"


@dataclass(slots=True)
class _Head:
    """What stands before the conversation, before a user text, and inside that user text; and at which turn."""

    first: list[Segment]
    before: list[Segment]
    inside: Pieces
    turn: int

    @property
    def moves(self) -> bool:
        """Whether a longer conversation has it elsewhere, so that earlier prompts were not what they are here."""
        return self.turn > 0 and bool(self.before or self.inside)


@dataclass(slots=True)
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
    turns = _write_turns(_Writer(template, settings, tokens), conversation, training=False)
    prompt = [part for turn in turns[:-1] for part in turn.prompt + turn.answer] + list(turns[-1].prompt)
    return _flagged(prompt, False), _flagged(list(turns[-1].answer), True)


def render_turns(
    template: Template, conversation: Conversation, settings: RenderSettings, tokens: TokenNames
) -> list[Turn]:
    """`render`, turn by turn, for the length budget that cuts prompt and answer of each turn.

    Where the official form writes an earlier answer otherwise than the model gives it (its thought is left out, or the
    prompt before it was another one), that answer carries no loss, unless its message asks for it.
    """
    if settings.train_on_prompt and template.efficient_eos:
        raise TemplateError(
            f"train_on_prompt cannot be used with the template {template.name!r}: its turns end in no token"
        )
    return _write_turns(_Writer(template, settings, tokens), conversation, training=True)


def _write_turns(writer: _Writer, conversation: Conversation, training: bool) -> list[Turn]:
    template, settings = writer.template, writer.settings
    system, exchanges = _exchanges(conversation)
    last = len(exchanges) - 1
    last_user = max((index for index, exchange in enumerate(exchanges) if exchange.is_user), default=0)
    answers = write_answers(template, [exchange.answer for exchange in exchanges], last_user, settings, training)
    head = _head(writer, conversation, system, last_user)
    turns = []
    for index, (exchange, written) in enumerate(zip(exchanges, answers, strict=True)):
        prompt = (head.first if index == 0 else []) + (head.before if index == head.turn else [])
        prompt = prompt + _asked(writer, exchange, head.inside if index == head.turn else [])
        answer = _added(written.inside) + _answer(writer, exchange.answer, written.text, exchange.call_ids)
        if index == last:
            answer += _end(writer, exchange.answer)
        elif training and template.efficient_eos and writer.tokens.eos:
            answer.append(Segment("", breaks=True))
        is_served = written.is_served and not (head.moves and index < head.turn)
        trained = (index == last or not settings.mask_history) and is_served
        first = system if index == 0 else None
        turns.append(_with_flags(exchange, prompt + _added(written.before), answer, settings, trained, first))
    return turns


def _added(text: str) -> list[Segment]:
    return [Segment(text, breaks=True)] if text else []


def _with_flags(
    exchange: _Exchange,
    prompt: list[Segment],
    answer: list[Segment],
    settings: RenderSettings,
    trained: bool,
    system: Message | None,
) -> Turn:
    chosen = [asked.message.trained for asked in exchange.asked] + ([system.trained] if system else [])
    asks = True in chosen or (settings.train_on_prompt and False not in chosen)
    answers = trained or settings.train_on_prompt
    if exchange.answer is not None and exchange.answer.trained is not None:
        answers = exchange.answer.trained
    return Turn(tuple(_flagged(prompt, asks)), tuple(_flagged(answer, answers)))


def _flagged(parts: list[Segment], trained: bool) -> list[Segment]:
    return [
        part if part.trained == trained else Segment(part.text, trained, part.literal, part.breaks) for part in parts
    ]


def _exchanges(conversation: Conversation) -> tuple[Message | None, list[_Exchange]]:
    """Groups messages into turns: one user message or the results of one set of calls, then the answer."""
    messages = conversation.messages
    system = messages[0] if messages and messages[0].role == "system" else None
    exchanges: list[_Exchange] = []
    asked: list[_Asked] = []
    for index, (message, ids) in enumerate(zip(messages, call_ids(messages, short=True), strict=True)):
        if message is system and index == 0:
            continue
        if message.role == "assistant" and asked:
            exchanges.append(_Exchange(tuple(asked), message, ids))
            asked = []
        elif (message.role == "user" and not asked) or (
            message.role == "tool" and (not asked or asked[-1].message.role == "tool")
        ):
            asked.append(_Asked(message, ids))
        else:
            raise TemplateError(
                f"message {index + 1} cannot be the {message.role}'s here: turns go user or tool, assistant, ..."
            )
    if asked:
        exchanges.append(_Exchange(tuple(asked), None))
    if not exchanges:
        raise TemplateError("the conversation has no user message")
    return system, exchanges


def _head(writer: _Writer, conversation: Conversation, system: Message | None, last_user: int) -> _Head:
    """What is written of system text and tools, and where."""
    template, settings = writer.template, writer.settings
    fallback = template.default_system if settings.default_system is None else settings.default_system
    text = _content(template, system) if system and system.content else fallback
    pieces: Pieces = [(text, False)] if text else []
    tools = conversation.tools
    described = tools is not None and (bool(tools) or settings.compat)
    tools_pieces = _tools_pieces(writer, tools or (), bare_system=not text) if described else []
    before: list[Segment] = []
    if template.tools_before_user:
        before = [replace(part, breaks=index == 0) for index, part in enumerate(_parts(tools_pieces))]
    else:
        pieces = pieces + tools_pieces
    first = _segments(template.prefix, [], writer.tokens)
    has_part = bool(text) or (described and not template.tools_before_user)
    if template.kind in ("system_in_first_user", "system_in_last_user"):
        inside = _filled(template.system, pieces) if has_part else []
        return _Head(first, before, inside, last_user if template.kind == "system_in_last_user" else 0)
    if has_part:
        first += _segments(template.system, pieces, writer.tokens)
    return _Head(first, before, [], last_user)


def _content(template: Template, message: Message) -> str:
    return message.content.strip() if message.role in template.strip else message.content


def _tools_pieces(writer: _Writer, tools: Sequence[dict[str, Any]], bare_system: bool) -> Pieces:
    template, tool_format = writer.template, writer.tool_format
    if not tools and not tool_format.describes_none:
        return []
    text = tool_format.tools_text(shield(tools, tool_format.marks), writer.settings.today or date.today())
    if bare_system and (template.lstrip_tools or template.kind == "plain_lstrip_tools_without_system"):
        text = text.lstrip()
    return split_marks(text, tool_format.marks)


def _asked(writer: _Writer, exchange: _Exchange, inside: Pieces) -> list[Segment]:
    template = writer.template
    slot = template.user if exchange.is_user else template.observation
    if not exchange.is_user and template.links_calls:
        return [part for asked in exchange.asked for part in _result(writer, asked)]
    pieces = list(inside)
    for index, asked in enumerate(exchange.asked):
        pieces += [(template.observation_join, True)] if index else []
        pieces.append((_content(template, asked.message), False))
    return _segments(slot, pieces, writer.tokens)


def _result(writer: _Writer, asked: _Asked) -> list[Segment]:
    """One result with the id of its call."""
    template = writer.template
    name = asked.ids[0] if asked.ids else ""
    slot = tuple(item.replace(CALL_ID, name) if isinstance(item, str) else item for item in template.observation)
    return _segments(slot, [(_content(template, asked.message), False)], writer.tokens)


def _answer(writer: _Writer, answer: Message | None, text: str, ids: Sequence[str]) -> list[Segment]:
    template = writer.template
    if answer is None:
        return []
    pieces = split_marks(text, template.answer_marks)
    if not answer.tool_calls:
        return _segments(template.assistant, pieces, writer.tokens)
    calls_pieces = _calls_pieces(writer, answer, ids)
    if writer.settings.compat:
        joint: Pieces = [("\n", False)] if text and not text.endswith(("\n", template.thought_words[1])) else []
    elif text and template.call_mark:
        head, _, tail = str(template.function[0]).partition(CONTENT)
        lead = str(template.assistant[0]).partition(CONTENT)[0]
        slot = (CONTENT + tail, *template.function[1:])
        return _segments(slot, [(lead, True), *pieces, (head, True), *calls_pieces], writer.tokens)
    else:
        ends_thought = template.reasons and text.endswith(template.thought_words[1])
        joint = [("\n", False)] if text and not ends_thought else []
    return _segments(template.function, [*pieces, *joint, *calls_pieces], writer.tokens)


def _calls_pieces(writer: _Writer, answer: Message, ids: Sequence[str]) -> Pieces:
    tool_format = writer.tool_format
    linked: Sequence[str | None] = ids if writer.template.links_calls else [None] * len(answer.tool_calls)
    calls = [
        replace(call, arguments=shield(call.arguments, tool_format.marks), id=one)
        for call, one in zip(answer.tool_calls, linked, strict=True)
    ]
    return split_marks(tool_format.calls_text(calls, writer.settings.compat), tool_format.marks)


def _end(writer: _Writer, answer: Message | None) -> list[Segment]:
    if answer is None:
        return []
    ending = _segments(writer.template.ending, [], writer.tokens)
    has_end = writer.template.efficient_eos and writer.tokens.eos
    return ending + ([Segment(writer.tokens.eos or "", breaks=True)] if has_end else [])


def _parts(pieces: Pieces) -> list[Segment]:
    return [Segment(text, literal=literal) for text, literal in pieces if text]


def _filled(slot: Slot, pieces: Pieces) -> Pieces:
    """The slot's one text with the pieces in the place of the content."""
    head, tail = _around(slot)
    return [(head, True), *pieces, (tail, True)]


@functools.lru_cache(maxsize=1024)
def _around(slot: Slot) -> tuple[str, str]:
    head, _, tail = "".join(element for element in slot if isinstance(element, str)).partition(CONTENT)
    return head, tail


def _segments(slot: Slot, pieces: Pieces, tokens: TokenNames) -> list[Segment]:
    """The slot with its content filled in; each element of the slot breaks."""
    segments: list[Segment] = []
    for element in slot:
        if isinstance(element, Token):
            name = {BOS: tokens.bos, EOS: tokens.eos}.get(element.name, element.name)
            segments += [_literal(name)] if name else []
            continue
        if CONTENT not in element:
            segments += [_literal(element)] if element else []
            continue
        breaks = True
        for text, literal in _filled((element,), pieces):
            if text:
                segments.append(Segment(text, False, literal, breaks))
                breaks = False
    return segments


@functools.lru_cache(maxsize=1024)
def _literal(text: str) -> Segment:
    """Text of a slot that is encoded apart; the same object each time."""
    return Segment(text, breaks=True)
