"""Tokens and money: what was used, what a call could cost at most, where the limit is."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from tunesmith.synthesis.calls import Call, CallFailedError, Reply
from tunesmith.synthesis.counting import TokenCounter

_MILLION = 1_000_000
OVER_LIMIT = "max_cost is used up"


@dataclass(slots=True)
class Usage:
    """Calls and their tokens."""

    calls: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0

    def add(self, reply: Reply) -> None:
        """Counts one answer."""
        self.calls += 1
        self.prompt_tokens += reply.prompt_tokens
        self.completion_tokens += reply.completion_tokens


@dataclass(slots=True)
class Meter:
    """Counts what is used.

    Attributes:
        counter: counts the tokens of prompts that are not sent yet.
        price_prompt: of a million tokens.
        price_completion: of a million tokens.
        max_cost: no call begins that could bring the cost above it; None: no limit.
        total: of all runs in this folder.
        new: of this run.
    """

    counter: TokenCounter
    price_prompt: float = 0.0
    price_completion: float = 0.0
    max_cost: float | None = None
    total: Usage = field(default_factory=Usage)
    new: Usage = field(default_factory=Usage)
    _reserved: float = 0.0

    def add(self, reply: Reply, *, is_new: bool) -> None:
        """Counts an answer, of this run or of an earlier one."""
        self.total.add(reply)
        if is_new:
            self.new.add(reply)

    def price(self, prompt_tokens: float, completion_tokens: float) -> float:
        """What so many tokens cost."""
        return (prompt_tokens * self.price_prompt + completion_tokens * self.price_completion) / _MILLION

    @property
    def cost(self) -> float:
        """Of all runs in this folder."""
        return self.price(self.total.prompt_tokens, self.total.completion_tokens)

    @contextmanager
    def reserved(self, call: Call) -> Iterator[None]:
        """Sets aside what a call could cost while it is under way.

        Raises:
            CallFailedError: it could bring the cost above the limit.
        """
        most = 0.0
        if self.max_cost is not None:
            most = self.price(prompt_tokens(self.counter, call), call.max_tokens)
            if self.cost + self._reserved + most > self.max_cost:
                raise CallFailedError(OVER_LIMIT, f"{self.cost:.4f} of {self.max_cost:g} are spent")
        self._reserved += most
        try:
            yield
        finally:
            self._reserved -= most


def prompt_tokens(counter: TokenCounter, call: Call) -> int:
    """Tokens of a prompt, about: what templates write around messages is taken for 8 a message."""
    return sum(counter.counts([message.content for message in call.messages])) + 8 * len(call.messages)
