"""An engine without a model, for tests of everything above the engine, in this project and in others'."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from tunesmith.inference.adapting import AdaptingEngine
from tunesmith.inference.engine import Delta, EngineStats, GenerationRequest, TokenLogprob
from tunesmith.inference.under_way import Decode, UnderWay, budget_of

Answer = Callable[[GenerationRequest], Sequence[int]]


@dataclass(slots=True, eq=False, kw_only=True)
class _Work(UnderWay):
    """One answer under way."""

    coming: Iterator[int]


class FakeEngine(AdaptingEngine[Path]):
    """Answers from a function or a list, one token a step for each answer that has a slot.

    The last request's delta comes first in a step: whoever relies on input order finds out.

    Args:
        answer: gives the whole answer to a request, end token included where there should be one; or a list of answers,
            given in turn and from the start again.
        slots: answers under way together.
        context: as of a real engine.
        decode: token ids to text; needed for stop texts only.

    Attributes:
        requests: every request seen, in order.
    """

    def __init__(
        self,
        answer: Answer | Sequence[Sequence[int]],
        *,
        slots: int = 8,
        context: int | None = None,
        decode: Decode | None = None,
    ) -> None:
        super().__init__()
        self.requests: list[GenerationRequest] = []
        self.context = context
        self.slots = slots
        self._answer = answer
        self._decode = decode
        self._ids = itertools.count(1)
        self._running: list[_Work] = []
        self._waiting: list[_Work] = []
        self._prompt_tokens = 0
        self._generated = 0

    def submit(self, request: GenerationRequest) -> int:
        """Takes a request; each of its n answers gets the next of the list."""
        budget = budget_of(request, self.context)
        self._refuse_unknown(request.adapter)
        turn, request_id = len(self.requests), next(self._ids)
        self.requests.append(request)
        for index in range(request.sampling.n):
            ids = self._answer(request) if callable(self._answer) else self._answer[(turn + index) % len(self._answer)]
            self._waiting.append(_Work(request_id, index, request, budget, coming=iter(ids)))
        self._prompt_tokens += len(request.prompt_ids)
        return request_id

    def cancel(self, request_id: int) -> None:
        """Ends a request."""
        self._running = [work for work in self._running if work.request_id != request_id]
        self._waiting = [work for work in self._waiting if work.request_id != request_id]

    def step(self) -> list[Delta]:
        """One token for each answer under way."""
        while self._waiting and len(self._running) < self.slots:
            self._running.append(self._waiting.pop(0))
        deltas = [self._advance(work) for work in reversed(self._running)]
        self._running = [work for work in self._running if not work.finish_reason]
        return deltas

    def _advance(self, work: _Work) -> Delta:
        token_id = next(work.coming, None)
        if token_id is None:
            work.finish_reason = "length"
            return Delta((), "length", None, work.request_id, work.index)
        wanted = work.request.sampling.logprobs
        # A fake model is sure of itself: probability 1/2 for what it says.
        delta = work.accept(token_id, self._decode, None if wanted is None else _half(token_id, wanted))
        self._generated += len(delta.token_ids)
        return delta

    def stats(self) -> EngineStats:
        """Counters, now."""
        return EngineStats(
            waiting=len(self._waiting),
            running=len(self._running),
            slots=self.slots,
            prompt_tokens=self._prompt_tokens,
            generated_tokens=self._generated,
        )

    def _load(self, name: str, path: Path) -> Path:
        """Nothing is read."""
        return path

    def _left(self, adapter: Path) -> None:
        """Nothing is kept."""


def _half(token_id: int, count: int) -> TokenLogprob:
    return TokenLogprob(token_id, math.log(0.5), tuple((token_id + i, math.log(0.5)) for i in range(count)))
