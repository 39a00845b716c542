"""A tokenizer's chat template and a conversation as it sees it; what is learnt of it is `auto_template.py`'s business.

Text of messages that reads like a control token is broken by a private character before the template sees it, and made
whole again after the rendering as text that is not literal; so whatever the template does with it, it never becomes the
token.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tunesmith.core.errors import TemplateError
from tunesmith.core.types import Conversation, Message
from tunesmith.data.call_ids import call_ids
from tunesmith.data.guard import Guard, guard_of
from tunesmith.data.settings import RenderSettings
from tunesmith.data.tools.base import SHIELD, shield, to_json, wrapped

GENERATION = re.compile(r"\{%-?\s*generation\s*-?%\}")
"""How a template marks what the model generates."""
ANSWER_MARK = re.compile(r"</?(\w+:)?(think|thinking|tool_call)>|◁/?think▷")
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


@dataclass(frozen=True)
class Chat:
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
    def of(template: AutoTemplate, conversation: Conversation, settings: RenderSettings) -> Chat:
        messages = conversation.messages
        offset = 0
        if settings.default_system and not any(message.role == "system" for message in messages[:1]):
            messages, offset = (Message("system", settings.default_system), *messages), 1
        plain = as_dicts(template, messages)
        tools = [wrapped(tool) for tool in conversation.tools or ()] or None
        options: dict[str, Any] = {"tools": _broken(tools, template.guard.names)}
        if settings.enable_thinking is not None:
            options["enable_thinking"] = settings.enable_thinking
        if settings.preserve_thinking:
            options["preserve_thinking"] = True
        return Chat(template, [_broken_message(item, template.guard) for item in plain], plain, options, offset)

    def render(self, count: int, generation: bool) -> str:
        """The first `count` messages as text, control tokens of their contents still broken.

        Raises:
            TemplateError: the template refuses them, or breaking the tokens changed what it wrote.
        """
        text = self._write(self.messages[:count], self.options, generation)
        if SHIELD in text:
            tools = _whole(self.options["tools"])
            if text.replace(SHIELD, "") != self._write(
                self.plain[:count], {**self.options, "tools": tools}, generation
            ):
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
            texts = [with_text_arguments(message) for message in messages]
            return self._jinja(texts, options, add_generation_prompt=generation)[0]

    def _jinja(
        self, messages: list[dict[str, Any]], options: Mapping[str, Any], **flags: bool
    ) -> tuple[str, list[tuple[int, int]]]:
        """Text and generation blocks; `apply_chat_template` would drop `content: None`, which some templates test."""
        from transformers.utils.chat_template_utils import render_jinja_template

        values = {**self.template.tokenizer.special_tokens_map, **options, **flags}
        texts, spans = render_jinja_template([messages], chat_template=self.template.text, **values)
        return texts[0], spans[0] if spans else []

    def generation_spans(self) -> list[tuple[int, int]]:
        """What the template itself marks as generated, in characters of the rendered text."""
        return list(self._jinja(self.messages, self.options, return_assistant_tokens_mask=True)[1])


def as_dicts(template: AutoTemplate, messages: Sequence[Message]) -> list[dict[str, Any]]:
    """The messages in the form that chat templates read; ids link results to calls."""
    wants_none = re.search(r"content['\"]?\]? is (none|None)", template.text) is not None
    short = "length 9" in template.text or "length != 9" in template.text  # Mistral's templates refuse any other id
    calls: dict[str, str] = {}
    chat = []
    for message, ids in zip(messages, call_ids(messages, short), strict=True):
        item: dict[str, Any] = {"role": message.role, "content": message.content}
        if message.reasoning_content is not None:
            _put_thought(item, message.reasoning_content, template)
        if message.tool_calls:
            calls = {one: call.name for one, call in zip(ids, message.tool_calls, strict=True)}
            item["tool_calls"] = [
                {"id": one, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}
                for one, call in zip(ids, message.tool_calls, strict=True)
            ]
            item["content"] = item["content"] or (None if wants_none else "")
        elif message.role == "tool" and ids:
            item["tool_call_id"], item["name"] = ids[0], calls.get(ids[0], "")
        chat.append(item)
    return chat


def _put_thought(item: dict[str, Any], thought: str, template: AutoTemplate) -> None:
    """As a field of its own where the template reads one, else inside the content: never dropped."""
    if _THOUGHT_FIELD.search(template.text):
        item["reasoning_content"] = thought
    else:
        item["content"] = f"{template.thought_words[0]}{thought}{template.thought_words[1]}{item['content']}"


def with_text_arguments(message: dict[str, Any]) -> dict[str, Any]:
    """The message with the arguments of its calls as JSON text."""
    calls = [
        {**call, "function": {**call["function"], "arguments": to_json(call["function"]["arguments"])}}
        for call in message.get("tool_calls", [])
    ]
    return {**message, "tool_calls": calls} if calls else message


def _broken_message(message: dict[str, Any], guard: Guard) -> dict[str, Any]:
    names = guard.names
    if message["role"] == "assistant":
        names = tuple(name for name in names if not ANSWER_MARK.fullmatch(name))
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
