"""Messages to token ids and token ids to text: once, for the terminal chat, the API, prediction and every engine."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from tunesmith.core.types import Conversation, Message
from tunesmith.data.auto_template import AutoTemplate
from tunesmith.data.encode import encode
from tunesmith.data.render import RenderSettings, render_prompt, token_names
from tunesmith.data.settings import settings_of
from tunesmith.data.template import Template
from tunesmith.inference.engine import Completion, Engine, GenerationRequest, SamplingParams

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from tunesmith.config.schema import RunConfig

_BROKEN = "\ufffd"
_MAX_PENDING = 3
"""Bytes of a UTF-8 character that can be there while it is not whole."""


def render_settings(config: RunConfig) -> RenderSettings:
    """How prompts are rendered under a configuration."""
    return replace(settings_of(config), mask_history=False, train_on_prompt=False)


@dataclass(frozen=True, slots=True)
class ChatFormat:
    """How one model is talked to.

    Attributes:
        template: named or the tokenizer's own.
        tokenizer: with the template's end token set.
        settings: choices of the rendering.
        end_token_ids: ids that end an answer.
        adapter: what requests name to get the configured model; None: the model as it was loaded.
    """

    template: Template | AutoTemplate
    tokenizer: PreTrainedTokenizerBase
    settings: RenderSettings = field(default_factory=RenderSettings)
    end_token_ids: tuple[int, ...] = ()
    adapter: str | None = None

    def prompt_ids(self, messages: Sequence[Message], tools: Sequence[dict[str, Any]] | None = None) -> list[int]:
        """Token ids up to where the model answers; the very ids that training saw before the answer.

        Raises:
            TemplateError: the last message is the assistant's, or the order of roles cannot be written.
        """
        conversation = Conversation(tuple(messages), None if tools is None else tuple(tools))
        names = token_names(self.tokenizer, self.template)
        segments = render_prompt(self.template, conversation, self.settings, names)
        return encode(segments, self.tokenizer, self.template)[0]

    def request(
        self,
        messages: Sequence[Message],
        sampling: SamplingParams,
        tools: Sequence[dict[str, Any]] | None = None,
    ) -> GenerationRequest:
        """The request that asks an engine for the next answer."""
        return GenerationRequest(self.prompt_ids(messages, tools), sampling, self.end_token_ids, self.adapter)

    def text_of(self, completion: Completion, *, skip_special_tokens: bool = True, stop: Sequence[str] = ()) -> str:
        """The text of a finished answer; without skipping, its end token is shown, too."""
        ids = list(completion.token_ids)
        if not skip_special_tokens and completion.end_token_id is not None:
            ids.append(completion.end_token_id)
        text = decode(self.tokenizer, ids, skip_special_tokens)
        ends = [place for place in (text.find(word) for word in stop if word) if place >= 0]
        return text[: min(ends)] if ends else text

    def stream(self, engine: Engine, request: GenerationRequest, *, skip_special_tokens: bool = True) -> Iterator[str]:
        """Pieces of the answer's text as they become certain; never half a character or half a stop text."""
        decoder = StreamDecoder(self.tokenizer, skip_special_tokens=skip_special_tokens, stop=request.sampling.stop)
        for delta in engine.stream(request):
            ids = delta.token_ids
            if not skip_special_tokens and delta.end_token_id is not None:
                ids = (*ids, delta.end_token_id)
            piece = decoder.push(ids)
            if piece:
                yield piece
            if decoder.is_stopped:
                return
        rest = decoder.finish()
        if rest:
            yield rest


def decode(tokenizer: PreTrainedTokenizerBase, ids: Sequence[int], skip_special_tokens: bool) -> str:
    """Text of ids, blanks exactly as the tokens say."""
    options = {"skip_special_tokens": skip_special_tokens, "clean_up_tokenization_spaces": False}
    return str(tokenizer.decode(list(ids), **options))


class StreamDecoder:
    """Token ids in, text out, as early as it is certain.

    Text is decoded in a window that begins one step back: tokenizers write a word's blank by what stands before it.
    What may still grow into another character, or into a stop text, is held back.

    Args:
        tokenizer: decodes.
        skip_special_tokens: leaves special tokens out.
        stop: texts that end the answer; neither they nor what follows is given out.

    Attributes:
        is_stopped: a stop text came.
    """

    def __init__(
        self, tokenizer: PreTrainedTokenizerBase, *, skip_special_tokens: bool = True, stop: Iterable[str] = ()
    ) -> None:
        self.is_stopped = False
        self._tokenizer = tokenizer
        self._skip = skip_special_tokens
        self._stop = tuple(word for word in stop if word)
        self._ids: list[int] = []
        self._start = 0  # where the window begins
        self._read = 0  # up to here all text is out
        self._sent = 0  # characters after `_read` that are out already
        self._held = ""  # certain text that may be the beginning of a stop text

    def push(self, ids: Sequence[int]) -> str:
        """Takes the next tokens; returns the text that is certain now."""
        if self.is_stopped or not ids:
            return ""
        self._ids += ids
        return self._release(self._advance(final=False), final=False)

    def finish(self) -> str:
        """The text that was held back, with a replacement character for a character that never came whole."""
        return "" if self.is_stopped else self._release(self._advance(final=True), final=True)

    def _advance(self, *, final: bool) -> str:
        before = decode(self._tokenizer, self._ids[self._start : self._read], self._skip)
        text = decode(self._tokenizer, self._ids[self._start :], self._skip)[len(before) :]
        n_broken = 0 if final else min(len(text) - len(text.rstrip(_BROKEN)), _MAX_PENDING)
        piece = text[self._sent : len(text) - n_broken]
        if n_broken:
            self._sent += len(piece)
        else:
            self._start, self._read, self._sent = self._read, len(self._ids), 0
        return piece

    def _release(self, piece: str, *, final: bool) -> str:
        self._held += piece
        ends = [place for place in (self._held.find(word) for word in self._stop) if place >= 0]
        if ends:
            self.is_stopped = True
            return self._held[: min(ends)]
        kept = 0 if final else max((_overlap(self._held, word) for word in self._stop), default=0)
        out, self._held = self._held[: len(self._held) - kept], self._held[len(self._held) - kept :]
        return out


def _overlap(text: str, word: str) -> int:
    """Length of the longest end of `text` that `word` begins with, shorter than the whole word."""
    return next((n for n in range(min(len(text), len(word) - 1), 0, -1) if text.endswith(word[:n])), 0)
