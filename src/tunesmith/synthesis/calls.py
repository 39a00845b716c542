"""What is asked of a generator and what comes back; endpoint.py and local.py answer, journal.py remembers."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Protocol

from tunesmith.core.types import Message


@dataclass(frozen=True, slots=True)
class Call:
    """One question to a generator. Two calls with the same content are the same call.

    Attributes:
        messages: system (maybe) and user.
        model: of the endpoint, or the local model's name.
        temperature: of the answer.
        top_p: of the answer.
        max_tokens: of the answer.
        attempt: from 1; another attempt is another call with the same words.
        purpose: entries, support, second, judge or speakers.
        opening: words that a local model's answer is made to begin with; endpoints do not get it.
        extra: more fields of the request.
    """

    messages: tuple[Message, ...]
    model: str
    temperature: float
    top_p: float
    max_tokens: int
    attempt: int = 1
    purpose: str = "entries"
    opening: str = ""
    extra: Mapping[str, Any] = field(default_factory=dict)

    @property
    def key(self) -> str:
        """Hash of all of it: what a journal finds the answer by."""
        facts = {**asdict(self), "messages": [[message.role, message.content] for message in self.messages]}
        text = json.dumps(facts, sort_keys=True, ensure_ascii=False, default=dict)
        return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:32]


@dataclass(frozen=True, slots=True)
class Reply:
    """What a generator answered.

    Attributes:
        text: the answer, `opening` included.
        prompt_tokens: as the endpoint counts, or our tokenizer where it does not say.
        completion_tokens: likewise.
        is_cut: it ended because `max_tokens` were used up.
    """

    text: str
    prompt_tokens: int = 0
    completion_tokens: int = 0
    is_cut: bool = False


class CallFailedError(Exception):
    """A call has no answer, and repeating it did not help; the work goes on without it.

    Attributes:
        reason: in few words, the same for all failures of a kind.
        detail: what was said or seen.
    """

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(f"{reason}: {detail}" if detail else reason)
        self.reason = reason
        self.detail = detail


class Asker(Protocol):
    """Answers calls. Any number may be under way together on one event loop."""

    @property
    def name(self) -> str:
        """Where the answers come from."""
        ...

    async def ask(self, call: Call) -> Reply:
        """The answer.

        Raises:
            CallFailedError: this call has none.
            TunesmithError: no call will have one, such as with a wrong key.
        """
        ...

    async def close(self) -> None:
        """Frees connections or the model."""
        ...
