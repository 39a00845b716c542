"""An engine without a model, for tests of everything above the engine, in this project and in others'."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from tunesmith.inference.engine import Completion, Delta, GenerationRequest

Answer = Callable[[GenerationRequest], Sequence[int]]


class FakeEngine:
    """Answers from a function or a list.

    Args:
        answer: gives the whole answer to a request, end token included where there should be one; or a list of answers,
            given in turn and from the start again.

    Attributes:
        requests: every request seen, in order.
    """

    def __init__(self, answer: Answer | Sequence[Sequence[int]]) -> None:
        self.requests: list[GenerationRequest] = []
        self._answer = answer

    def _next(self, request: GenerationRequest) -> Sequence[int]:
        turn = len(self.requests)
        self.requests.append(request)
        return self._answer(request) if callable(self._answer) else self._answer[turn % len(self._answer)]

    def stream(self, request: GenerationRequest) -> Iterator[Delta]:
        """One token a delta; budget and end tokens hold as for a real engine."""
        for count, token_id in enumerate(self._next(request), 1):
            if token_id in request.end_token_ids:
                yield Delta((), "stop", token_id)
                return
            if count == request.sampling.budget(len(request.prompt_ids)):
                yield Delta((token_id,), "length")
                return
            yield Delta((token_id,))
        yield Delta((), "length")

    def generate(self, requests: Sequence[GenerationRequest]) -> Iterator[tuple[int, Completion]]:
        """Finishes the last request first: whoever relies on input order finds out."""
        done = []
        for index, request in enumerate(requests):
            deltas = list(self.stream(request))
            ids = tuple(token_id for delta in deltas for token_id in delta.token_ids)
            done.append((index, Completion(ids, deltas[-1].finish_reason or "length", deltas[-1].end_token_id)))
        yield from reversed(done)
