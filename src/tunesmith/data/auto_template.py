"""`template: auto`: the tokenizer's own chat template, with the mask found by comparing renderings.

Text of messages that reads like a control token is broken by a private character before the template sees it, and made
whole again afterwards as text that is not literal; so whatever the template does with it, it never becomes the token.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from tunesmith.core.errors import TemplateError
from tunesmith.core.types import Conversation, Message, Segment
from tunesmith.data.guard import Guard, guard_of
from tunesmith.data.settings import RenderSettings
from tunesmith.data.tools.base import SHIELD, bare, shield, to_json, wrapped

_GENERATION = re.compile(r"\{%-?\s*generation\s*-?%\}")
_ANSWER_MARK = re.compile(r"</?(\w+:)?(think|thinking|tool_call)>|◁/?think▷")
"""Tokens that an answer may write out in its text: a thought's and a call's marks."""
_THOUGHT_FIELD = re.compile(r"[.'\"](reasoning_content|reasoning|thinking)\b")


@dataclass(frozen=True, eq=False)
class AutoTemplate:
    """The chat template of a tokenizer.

    Attributes:
        tokenizer: renders it; never changed.
        text: the jinja source.
        name: as written in the configuration.
    """

    tokenizer: Any
    text: str
    name: str = "auto"
    efficient_eos: bool = False
    token_names: frozenset[str] = frozenset()
    stop_words: tuple[str, ...] = ()
    replace_eos: bool = False
    thought_words: tuple[str, str] = ("<think>\n", "\n</think>\n\n")
    tool_format: str | None = None

    @property
    def control_text(self) -> str:
        """All text that the template may write."""
        return self.text

    @property
    def guard(self) -> Guard:
        """What must not come out of a message's text."""
        return guard_of(self.tokenizer, self.text)


def auto_template(tokenizer: Any) -> AutoTemplate:
    """The tokenizer's own chat template.

    Raises:
        TemplateError: it has none.
    """
    try:
        text = tokenizer.get_chat_template()
    except (ValueError, AttributeError) as error:  # no template, or several and none of them the default
        raise TemplateError(
            "template: auto needs a tokenizer with a chat template, and this one has none; name a template"
        ) from error
    return AutoTemplate(tokenizer, text)


def render_auto(template: AutoTemplate, conversation: Conversation, settings: RenderSettings) -> list[Segment]:
    """The whole conversation; an answer is trained from where its prompt ends to where the next message begins.

    Raises:
        TemplateError: the template refuses the conversation, or writes a trained answer differently once more messages
            follow and does not mark generated text itself.
    """
    chat = _Chat.of(template, conversation, settings)
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
    chat = _Chat.of(template, conversation, settings)
    full = chat.render(len(chat.messages), generation=True)
    _check_nothing_lost(full, conversation)
    return _segments(template, full, [(*span, False) for _, span in sorted(_spans(chat, full).items())], False)


@dataclass(frozen=True)
class _Chat:
    """A conversation as the template sees it.

    Attributes:
        template: writes it.
        messages: with broken control tokens.
        plain: the same as they came.
        options: keyword arguments of the template.
        offset: 1 where a default system message was put before the conversation's own.
    """

    template: AutoTemplate
    messages: list[dict[str, Any]]
    plain: list[dict[str, Any]]
    options: dict[str, Any]
    offset: int

    @staticmethod
    def of(template: AutoTemplate, conversation: Conversation, settings: RenderSettings) -> _Chat:
        messages = conversation.messages
        offset = 0
        if settings.default_system and not any(message.role == "system" for message in messages[:1]):
            messages, offset = (Message("system", settings.default_system), *messages), 1
        plain = _as_dicts(template, messages)
        tools = [wrapped(tool) for tool in conversation.tools or ()] or None
        options: dict[str, Any] = {"tools": _broken(tools, template.guard.names)}
        if settings.enable_thinking is not None:
            options["enable_thinking"] = settings.enable_thinking
        if settings.preserve_thinking:
            options["preserve_thinking"] = True
        return _Chat(template, [_broken_message(item, template.guard) for item in plain], plain, options, offset)

    def render(self, count: int, generation: bool) -> str:
        """The first `count` messages as text, control tokens of their contents still broken.

        Raises:
            TemplateError: the template refuses them, or breaking the tokens changed what it wrote.
        """
        text = self._write(self.messages[:count], self.options, generation)
        if SHIELD in text:
            tools = _whole(self.options["tools"])
            if text.replace(SHIELD, "") != self._write(self.plain[:count], {**self.options, "tools": tools}, generation):
                raise TemplateError(
                    "the tokenizer's chat template acts on special-token text inside a message; "
                    "take that text out of the message, or name a template instead of auto"
                )
        return text

    def _write(self, messages: list[dict[str, Any]], options: Mapping[str, Any], generation: bool) -> str:
        from jinja2.exceptions import TemplateError as JinjaError

        try:
            return self._apply(messages, options, generation)
        except JinjaError as error:
            raise TemplateError(f"the tokenizer's chat template refuses the conversation: {error}") from error

    def _apply(self, messages: list[dict[str, Any]], options: Mapping[str, Any], generation: bool) -> str:
        try:
            return self._jinja(messages, options, add_generation_prompt=generation)[0]
        except TypeError:  # some templates add the arguments of a call to a string, so they want them as JSON text
            texts = [_with_text_arguments(message) for message in messages]
            return self._jinja(texts, options, add_generation_prompt=generation)[0]

    def _jinja(
        self, messages: list[dict[str, Any]], options: Mapping[str, Any], **flags: bool
    ) -> tuple[str, list[tuple[int, int]]]:
        """Text and generation blocks; not `apply_chat_template`, which drops `content: None` that some templates test."""
        from transformers.utils.chat_template_utils import render_jinja_template

        values = {**self.template.tokenizer.special_tokens_map, **options, **flags}
        texts, spans = render_jinja_template([messages], chat_template=self.template.text, **values)
        return texts[0], spans[0] if spans else []

    def generation_spans(self) -> list[tuple[int, int]]:
        """What the template itself marks as generated, in characters of the rendered text."""
        return list(self._jinja(self.messages, self.options, return_assistant_tokens_mask=True)[1])


def _as_dicts(template: AutoTemplate, messages: Sequence[Message]) -> list[dict[str, Any]]:
    wants_none = re.search(r"content['\"]?\]? is (none|None)", template.text) is not None
    short_ids = "length 9" in template.text  # Mistral's templates refuse any other id
    pending: list[tuple[str, str]] = []
    chat = []
    for index, message in enumerate(messages):
        item: dict[str, Any] = {"role": message.role, "content": message.content}
        if message.reasoning_content is not None:
            _put_thought(item, message.reasoning_content, template)
        if message.tool_calls:
            ids = [_call_id(call.id, short_ids, index, number) for number, call in enumerate(message.tool_calls)]
            pending = [(one, call.name) for one, call in zip(ids, message.tool_calls, strict=True)]
            item["tool_calls"] = [
                {"id": one, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}
                for one, call in zip(ids, message.tool_calls, strict=True)
            ]
            item["content"] = item["content"] or (None if wants_none else "")
        elif message.role == "tool" and pending:
            item["tool_call_id"], item["name"] = pending.pop(0)
        chat.append(item)
    return chat


def _put_thought(item: dict[str, Any], thought: str, template: AutoTemplate) -> None:
    """As a field of its own where the template reads one, else inside the content: never dropped."""
    if _THOUGHT_FIELD.search(template.text):
        item["reasoning_content"] = thought
    else:
        item["content"] = f"{template.thought_words[0]}{thought}{template.thought_words[1]}{item['content']}"


def _call_id(given: str | None, short: bool, index: int, number: int) -> str:
    return given if given and not short else f"call{index:03d}{number:02d}"


def _with_text_arguments(message: dict[str, Any]) -> dict[str, Any]:
    calls = [
        {**call, "function": {**call["function"], "arguments": to_json(call["function"]["arguments"])}}
        for call in message.get("tool_calls", [])
    ]
    return {**message, "tool_calls": calls} if calls else message


def _broken_message(message: dict[str, Any], guard: Guard) -> dict[str, Any]:
    names = guard.names
    if message["role"] == "assistant":
        names = tuple(name for name in names if not _ANSWER_MARK.fullmatch(name))
    kept = {key: message[key] for key in ("role", "tool_call_id", "name") if key in message}
    return {**_broken(message, names), **kept}


def _broken(value: Any, names: Sequence[str]) -> Any:
    """`value` with every guarded name in its texts broken; keys of objects are the template's business and stay."""
    if isinstance(value, str):
        return shield(value, [name for name in names if name in value])
    if isinstance(value, Mapping):
        return {key: _broken(item, names) for key, item in value.items()}
    return [_broken(item, names) for item in value] if isinstance(value, list | tuple) else value


def _whole(value: Any) -> Any:
    if isinstance(value, str):
        return value.replace(SHIELD, "")
    if isinstance(value, Mapping):
        return {key: _whole(item) for key, item in value.items()}
    return [_whole(item) for item in value] if isinstance(value, list) else value


def _spans(chat: _Chat, full: str) -> dict[int, tuple[int, int]]:
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
        raise TemplateError("template: auto: the tokenizer's chat template does not write tools; name a template that does")
    results = [message.content.strip() for message in conversation.messages if message.role == "tool"]
    if not all(result in text or to_json(result)[1:-1] in text for result in results):
        raise TemplateError("template: auto: the tokenizer's chat template does not write tool results; name a template")


def _marked_spans(chat: _Chat, full: str, first: int) -> dict[int, tuple[int, int]]:
    """Where the template's own generation blocks stand.

    Raises:
        TemplateError: there are none, or not one an answer.
    """
    answers = [index for index, message in enumerate(chat.messages) if message["role"] == "assistant"]
    if _GENERATION.search(chat.template.text):
        spans = chat.generation_spans()
        if len(spans) == len(answers):
            return dict(zip(answers, spans, strict=True))
    raise TemplateError(
        f"template: auto: the tokenizer's chat template writes the answer in message {first + 1} otherwise at the end of "
        "a prompt than inside a longer conversation, so what would be learnt is not what would be generated; "
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
