"""Token ids of one answer -> thought, content, tool calls, log-probabilities, as soon as each is certain."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from tunesmith.core.types import ToolCall
from tunesmith.data.tools import ToolFormat
from tunesmith.inference.chat import StreamDecoder
from tunesmith.inference.engine import Delta, TokenLogprob
from tunesmith.inference.split import CallWatch, ThoughtSplitter


@dataclass(frozen=True, slots=True)
class Tools:
    """What is needed to read calls out of an answer.

    Attributes:
        format: reads them.
        schemas: the tools of the request; calls of other names are text.
        most: calls that are given out at most; None: all.
        accepts: (text, calls read out of it) -> whether they are calls; None: they are.
    """

    format: ToolFormat
    schemas: tuple[dict[str, Any], ...]
    most: int | None = None
    accepts: Callable[[str, Sequence[ToolCall]], bool] | None = None

    def read(self, text: str) -> tuple[ToolCall, ...]:
        """The calls in `text`; none where it holds no well-formed call of a tool that there is."""
        parsed = self.format.parse(text, self.schemas)
        names = {schema["name"] for schema in self.schemas}
        if parsed is None or any(call.name not in names for call in parsed.calls):
            return ()
        if self.accepts and not self.accepts(text, parsed.calls):
            return ()
        return parsed.calls[: self.most]


@dataclass(frozen=True, slots=True)
class News:
    """What a few tokens brought.

    Attributes:
        reasoning: more of the thought.
        content: more of the answer.
        calls: all calls; they come at the end.
        logprobs: of every token since the last news.
        finish_reason: set in the last news of an answer.
    """

    reasoning: str = ""
    content: str = ""
    calls: tuple[ToolCall, ...] = ()
    logprobs: tuple[TokenLogprob, ...] = ()
    finish_reason: str | None = None

    @property
    def is_empty(self) -> bool:
        """Whether a client would learn nothing from it."""
        return not (self.reasoning or self.content or self.calls or self.logprobs or self.finish_reason)


@dataclass(slots=True)
class AnswerReader:
    """Reads one answer.

    Attributes:
        decoder: ids to text; stop texts end in it.
        thought: parts the thought off.
        tools: None: calls are not looked for.
        hidden_ids: special tokens that are no part of the text.
        n_tokens: tokens made so far, the end token among them.
        is_over: a stop text or the last delta came; what follows is passed over.
    """

    decoder: StreamDecoder
    thought: ThoughtSplitter
    tools: Tools | None = None
    hidden_ids: frozenset[int] = frozenset()
    n_tokens: int = 0
    is_over: bool = False
    _watch: CallWatch = field(init=False)

    def __post_init__(self) -> None:
        self._watch = CallWatch(None if self.tools is None else self.tools.format.openings)

    def push(self, delta: Delta) -> News:
        """Takes one delta of this answer."""
        if self.is_over:
            return News()
        self.n_tokens += len(delta.token_ids) + (delta.end_token_id is not None)
        ids = [token_id for token_id in delta.token_ids if token_id not in self.hidden_ids]
        text = self.decoder.push(ids)
        finish_reason: str | None = delta.finish_reason
        if self.decoder.is_stopped:
            finish_reason = "stop"
        elif finish_reason is not None:
            text += self.decoder.finish()
        reasoning, content = self._parted(text, final=finish_reason is not None)
        if finish_reason is None:
            return News(reasoning, content, logprobs=delta.logprobs)
        self.is_over = True
        return self._last(reasoning, content, delta.logprobs, finish_reason)

    def _parted(self, text: str, *, final: bool) -> tuple[str, str]:
        pieces = self.thought.push(text)
        if final:
            pieces += self.thought.finish()
        reasoning = "".join(piece for kind, piece in pieces if kind == "reasoning")
        content = "".join(piece for kind, piece in pieces if kind == "content")
        return reasoning, self._watch.push(content)

    def _last(self, reasoning: str, content: str, logprobs: Sequence[TokenLogprob], finish_reason: str) -> News:
        calls = self.tools.read(self._watch.text) if self.tools else ()
        if calls:
            return News(reasoning, content, calls, tuple(logprobs), "tool_calls")
        return News(reasoning, content + self._watch.rest(), (), tuple(logprobs), finish_reason)
