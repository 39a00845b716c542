"""The JSON of answers and of stream chunks, as OpenAI documents them. Builds objects; sends nothing."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from tunesmith.core.types import ToolCall
from tunesmith.inference.answer import News
from tunesmith.inference.engine import TokenLogprob

TokenText = Callable[[int], str]
JsonObject = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Envelope:
    """What all objects of one reply share."""

    kind: str
    model: str
    token_text: TokenText
    prefix: str = "chatcmpl"
    created: int = field(default_factory=lambda: int(time.time()))
    suffix: str = field(default_factory=lambda: uuid.uuid4().hex)

    def around(self, choices: list[JsonObject], **more: Any) -> JsonObject:
        """A whole object."""
        return {
            "id": f"{self.prefix}-{self.suffix}",
            "object": self.kind,
            "created": self.created,
            "model": self.model,
            "choices": choices,
            **more,
        }


def usage(prompt_tokens: int, completion_tokens: int) -> JsonObject:
    """Tokens; those of an answer count its end token."""
    return {
        "prompt_tokens": prompt_tokens,
        "completion_tokens": completion_tokens,
        "total_tokens": prompt_tokens + completion_tokens,
    }


def event(data: JsonObject) -> bytes:
    """One server-sent event."""
    return f"data: {json.dumps(data, ensure_ascii=False, separators=(',', ':'))}\n\n".encode()


DONE = b"data: [DONE]\n\n"
PING = b": still working\n\n"


def chat_choice(index: int, parts: Sequence[News], token_text: TokenText, with_logprobs: bool) -> JsonObject:
    """One whole answer of a chat."""
    content = "".join(part.content for part in parts)
    reasoning = "".join(part.reasoning for part in parts)
    calls = parts[-1].calls
    message: JsonObject = {"role": "assistant", "content": content or (None if calls else ""), "refusal": None}
    if reasoning:
        message["reasoning_content"] = reasoning
    if calls:
        message["tool_calls"] = [{"id": new_call_id(), **_call(call)} for call in calls]
    logprobs = [entry for part in parts for entry in part.logprobs]
    return {
        "index": index,
        "message": message,
        "logprobs": chat_logprobs(logprobs, token_text) if with_logprobs else None,
        "finish_reason": parts[-1].finish_reason,
    }


def new_call_id() -> str:
    """Nine letters and digits behind a prefix would be OpenAI's; nobody reads them."""
    return f"call_{uuid.uuid4().hex[:24]}"


def _call(call: ToolCall) -> JsonObject:
    arguments = json.dumps(call.arguments, ensure_ascii=False)
    return {"type": "function", "function": {"name": call.name, "arguments": arguments}}


def chat_deltas(index: int, news: News, token_text: TokenText, with_logprobs: bool) -> list[JsonObject]:
    """Choices of the chunks that one piece of news makes; the one that ends the answer has an empty delta."""
    logprobs = chat_logprobs(news.logprobs, token_text) if with_logprobs and news.logprobs else None
    deltas: list[JsonObject] = []
    if news.reasoning:
        deltas.append({"reasoning_content": news.reasoning})
    if news.content:
        deltas.append({"content": news.content})
    for place, call in enumerate(news.calls):
        whole = _call(call)
        function = whole["function"]
        begun = {"index": place, "id": new_call_id(), "type": "function", "function": {**function, "arguments": ""}}
        deltas.append({"tool_calls": [begun]})
        deltas.append({"tool_calls": [{"index": place, "function": {"arguments": function["arguments"]}}]})
    if logprobs and not deltas:
        deltas.append({})
    choices = [_chunk_choice(index, delta) for delta in deltas]
    if logprobs:
        choices[0]["logprobs"] = logprobs
    if news.finish_reason:
        choices.append(_chunk_choice(index, {}, news.finish_reason))
    return choices


def first_delta(index: int) -> JsonObject:
    """The choice that opens an answer."""
    return _chunk_choice(index, {"role": "assistant", "content": ""})


def _chunk_choice(index: int, delta: JsonObject, finish_reason: str | None = None) -> JsonObject:
    return {"index": index, "delta": delta, "logprobs": None, "finish_reason": finish_reason}


def chat_logprobs(entries: Sequence[TokenLogprob], token_text: TokenText) -> JsonObject:
    """The form of chat completions."""
    content = [
        {
            **_shown(entry.token_id, entry.logprob, token_text),
            "top_logprobs": [_shown(token_id, logprob, token_text) for token_id, logprob in entry.top],
        }
        for entry in entries
    ]
    return {"content": content, "refusal": None}


def _shown(token_id: int, logprob: float, token_text: TokenText) -> JsonObject:
    text = token_text(token_id)
    # A token that is a part of a character has no text; its bytes cannot be told from the text, so they are left out.
    return {"token": text, "logprob": logprob, "bytes": None if "\ufffd" in text else list(text.encode())}


def text_choice(index: int, text: str, parts: Sequence[News], logprobs: JsonObject | None) -> JsonObject:
    """One answer, or a piece of it, of a text completion."""
    return {"index": index, "text": text, "logprobs": logprobs, "finish_reason": parts[-1].finish_reason}


def text_logprobs(entries: Sequence[TokenLogprob], token_text: TokenText, offset: int = 0) -> JsonObject:
    """The form of text completions; `offset`: characters before the first token."""
    tokens = [token_text(entry.token_id) for entry in entries]
    offsets = []
    for token in tokens:
        offsets.append(offset)
        offset += len(token)
    return {
        "tokens": tokens,
        "token_logprobs": [entry.logprob for entry in entries],
        "top_logprobs": [{token_text(i): logprob for i, logprob in entry.top} for entry in entries],
        "text_offset": offsets,
    }
