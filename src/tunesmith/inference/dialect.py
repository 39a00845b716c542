"""How one model is spoken to: conversations to prompt ids by training's renderer, ids of an answer to a reader.

For every front end that parts thoughts and calls from text: the server and the chat page.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace
from typing import Any

from tunesmith.core.errors import TemplateError
from tunesmith.core.types import Conversation
from tunesmith.data.auto_template import AutoTemplate
from tunesmith.data.tools import format_of_jinja, load_tool_format
from tunesmith.inference.answer import AnswerReader, Tools
from tunesmith.inference.chat import ChatFormat, StreamDecoder, decode
from tunesmith.inference.split import ThoughtSplitter

_TAIL = 32
"""Tokens at the end of a prompt in which the opening mark of a thought is looked for."""


class UnwritableToolsError(TemplateError):
    """A tool's schema has a form that the template cannot write."""


@dataclass(frozen=True, slots=True)
class Asked:
    """A prompt, and what is needed to read the answer to it.

    Attributes:
        ids: the prompt.
        tools: None: calls are not looked for.
        thought_words: None: the answer is not parted.
        is_thinking: the prompt has opened a thought.
    """

    ids: list[int]
    tools: Tools | None = None
    thought_words: tuple[str, str] | None = None
    is_thinking: bool = False


class ModelDialect:
    """One model's way to write and read.

    `written` may run in another thread than the rest: it has a tokenizer of its own.

    Args:
        form: template, tokenizer and settings as the terminal chat has them.
    """

    def __init__(self, form: ChatFormat) -> None:
        self.form = form
        self.tokenizer = form.tokenizer
        template = form.template
        own = copy.deepcopy(form.tokenizer)
        if isinstance(template, AutoTemplate):
            template = replace(template, tokenizer=own)
        self._asking = replace(form, tokenizer=own, template=template)
        name = form.settings.tool_format or template.tool_format
        self.tool_format = load_tool_format(name or format_of_jinja(template.control_text))
        self.thought_words = _thought_words(form)
        self.hidden_ids = self._hidden_ids()

    def _hidden_ids(self) -> frozenset[int]:
        """Special tokens, but for those that mark thoughts and calls: whoever reads the text needs them."""
        marks = "\n".join([*self.tool_format.marks, *self.tool_format.openings, *(self.thought_words or ())])
        added = self.tokenizer.added_tokens_decoder.items()
        special = set(self.tokenizer.all_special_ids) | {i for i, token in added if token.special}
        return frozenset(i for i in special if (self.tokenizer.convert_ids_to_tokens(i) or "\0") not in marks)

    def written(self, conversation: Conversation, thinking: bool | None = None, most_calls: int | None = None) -> Asked:
        """The prompt of a conversation; its ids are those that training saw before such an answer.

        Args:
            conversation: messages and tools.
            thinking: whether the model is to think; None: as the configuration says.
            most_calls: calls that are given out at most; None: all.

        Raises:
            TemplateError: the conversation cannot be written as a prompt; says why.
        """
        ids = self._prompt_ids(conversation, thinking)
        opening = (self.thought_words or ("\0", ""))[0].strip()
        tail = decode(self._asking.tokenizer, ids[-_TAIL:], False).rstrip()
        tools = Tools(self.tool_format, conversation.tools, most_calls) if conversation.tools else None
        return Asked(ids, tools, self.thought_words, tail.endswith(opening))

    def _prompt_ids(self, conversation: Conversation, thinking: bool | None) -> list[int]:
        form = self._asking
        if thinking is not None:
            form = replace(form, settings=replace(form.settings, enable_thinking=thinking))
        try:
            return form.prompt_ids(conversation.messages, conversation.tools)
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            if not conversation.tools:
                raise
            # A schema is free JSON; formats that write it out in words read `properties` and the like.
            raise UnwritableToolsError(f"tools: a schema cannot be written by this template: {error!r}") from error

    def text_ids(self, text: str) -> list[int]:
        """Ids of plain text, with the tokens that this tokenizer puts before a text."""
        return list(self._asking.tokenizer(text)["input_ids"])

    def plain_ids(self, text: str) -> list[int]:
        """Ids of a text with the template's marks in it, and nothing put before it."""
        return list(self._asking.tokenizer(text, add_special_tokens=False, split_special_tokens=False)["input_ids"])

    def reader(self, asked: Asked, stop: tuple[str, ...]) -> AnswerReader:
        """Reads one answer to `asked`."""
        decoder = StreamDecoder(self.tokenizer, skip_special_tokens=False, stop=stop)
        thought = ThoughtSplitter(asked.thought_words, asked.is_thinking)
        return AnswerReader(decoder, thought, asked.tools, self.hidden_ids)

    def token_text(self, token_id: int) -> str:
        """One token's text."""
        return decode(self.tokenizer, [token_id], False)

    @property
    def vocabulary_size(self) -> int:
        """Ids below this are tokens."""
        return len(self.tokenizer)


def _thought_words(form: ChatFormat) -> tuple[str, str] | None:
    template: Any = form.template
    if isinstance(template, AutoTemplate):
        return template.thought_words if template.thought_words[0].strip() in template.text else None
    return template.thought_words if template.reasons else None
