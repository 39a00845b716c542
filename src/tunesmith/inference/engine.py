"""The engine interface: token ids in and out, requests come and go between steps. Text and templates live above it.

A front end that serves many users talks to `runner.py`, which owns an engine in a thread; scripts use `generate`.
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol, runtime_checkable

from tunesmith.core.errors import ModelError

if TYPE_CHECKING:
    from pathlib import Path

    from tunesmith.config.schema import RunConfig
    from tunesmith.inference.scoring import Score, ScoreRequest

FinishReason = Literal["stop", "length"]
Constraint = Callable[[Sequence[int]], Any]
"""Given the answer so far, the tokens that may come next: a (V,) boolean tensor, a sequence of ids, or None for all.
Nothing allowed ends the answer. One constraint serves all n answers, so what it remembers it finds by the ids given."""

LOOKAHEAD = 8
"""`generate` keeps this many requests a slot with the engine: enough to choose among, few enough to finish in order."""


@dataclass(frozen=True, slots=True)
class SamplingParams:
    """How the next token is chosen; names and defaults are those of the generation keys.

    Attributes:
        do_sample: False takes the most likely token; so does temperature 0.
        temperature: divides the logits.
        top_p: keep the smallest set of tokens whose probabilities reach it; 1 keeps all.
        top_k: keep the k most likely tokens; 0 keeps all.
        num_beams: above 1 searches with beams; such a request is never streamed token by token.
        max_new_tokens: tokens to make at most; 0 or less: `max_length` rules.
        max_length: prompt and answer together, in tokens.
        repetition_penalty: above 1 makes tokens of the prompt and the answer less likely (CTRL, arXiv 1909.05858).
        length_penalty: exponent of the length in beam scores.
        seed: each answer draws from its own generator, so it does not depend on its neighbours in a batch.
        stop: texts that end the answer; need an engine that was given `decode`.
        presence_penalty: is subtracted from the logits of tokens that are in the answer already.
        frequency_penalty: is subtracted once for every time that a token is in the answer already.
        logit_bias: (token id, number added to its logit) pairs.
        n: answers to make of one prompt.
        logprobs: None: none; k: the log-probability of each token of the answer and of the k most likely ones, as the
            model gives them, before penalties, temperature and constraints.
    """

    do_sample: bool = True
    temperature: float = 0.95
    top_p: float = 0.7
    top_k: int = 50
    num_beams: int = 1
    max_new_tokens: int = 1024
    max_length: int = 1024
    repetition_penalty: float = 1.0
    length_penalty: float = 1.0
    seed: int | None = None
    stop: tuple[str, ...] = ()
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    logit_bias: tuple[tuple[int, float], ...] = ()
    n: int = 1
    logprobs: int | None = None

    @classmethod
    def from_config(cls, config: RunConfig, *, seed: int | None = None) -> SamplingParams:
        """The generation keys of a configuration."""
        return cls(
            do_sample=config.do_sample,
            temperature=config.temperature,
            top_p=config.top_p,
            top_k=config.top_k,
            num_beams=config.num_beams,
            max_new_tokens=config.max_new_tokens,
            max_length=config.max_length,
            repetition_penalty=config.repetition_penalty,
            length_penalty=config.length_penalty,
            seed=seed,
            stop=config.stop,
        )

    @property
    def is_greedy(self) -> bool:
        """Whether no chance is involved."""
        return not self.do_sample or self.temperature <= 0

    def budget(self, n_prompt: int) -> int:
        """How many tokens may be made after a prompt of `n_prompt` tokens, at least 1."""
        return self.max_new_tokens if self.max_new_tokens > 0 else max(1, self.max_length - n_prompt)


@dataclass(frozen=True, slots=True)
class GenerationRequest:
    """What is asked of one prompt.

    Attributes:
        prompt_ids: token ids, not padded, at least one.
        sampling: how to choose.
        end_token_ids: any of these ends the answer.
        adapter: name of a live adapter; None: the model as it was loaded.
        constraint: which tokens may come next.
    """

    prompt_ids: Sequence[int]
    sampling: SamplingParams = SamplingParams()
    end_token_ids: tuple[int, ...] = ()
    adapter: str | None = None
    constraint: Constraint | None = None


@dataclass(frozen=True, slots=True)
class TokenLogprob:
    """Log-probabilities (nats) at one position.

    Attributes:
        token_id: the token that was chosen.
        logprob: its log-probability.
        top: (token id, log-probability) of the most likely tokens, most likely first.
    """

    token_id: int
    logprob: float
    top: tuple[tuple[int, float], ...] = ()


@dataclass(frozen=True, slots=True)
class Completion:
    """One finished answer.

    Attributes:
        token_ids: the answer without the end token.
        finish_reason: `stop`: an end token or a stop text came; `length`: the budget is used up.
        end_token_id: the end token that came, None when none did.
        index: which of the n answers of its request.
        logprobs: one for each of `token_ids`; empty when none were asked for.
    """

    token_ids: tuple[int, ...]
    finish_reason: FinishReason
    end_token_id: int | None = None
    index: int = 0
    logprobs: tuple[TokenLogprob, ...] = ()


@dataclass(frozen=True, slots=True)
class Delta:
    """What one step brings to one answer.

    Attributes:
        token_ids: new tokens, never an end token; may be empty in the last delta.
        finish_reason: set in the last delta of an answer only.
        end_token_id: the end token that came, in the last delta.
        request_id: what `submit` returned.
        index: which of the n answers of the request.
        logprobs: one for each of `token_ids`; empty when none were asked for.
    """

    token_ids: tuple[int, ...]
    finish_reason: FinishReason | None = None
    end_token_id: int | None = None
    request_id: int = 0
    index: int = 0
    logprobs: tuple[TokenLogprob, ...] = ()


@dataclass(frozen=True, slots=True)
class EngineStats:
    """Counters of an engine; the totals only grow.

    Attributes:
        waiting: answers that have not begun.
        running: answers under way.
        slots: answers that can be under way together.
        prompt_tokens: of all prompts begun.
        cached_tokens: those of them that the prefix cache held.
        generated_tokens: of all answers.
        cache_bytes: keys and values in memory now.
    """

    waiting: int = 0
    running: int = 0
    slots: int = 1
    prompt_tokens: int = 0
    cached_tokens: int = 0
    generated_tokens: int = 0
    cache_bytes: int = 0


@runtime_checkable
class Engine(Protocol):
    """What makes tokens. Engines are not thread-safe: `runner.py` owns one in a thread for many clients."""

    @property
    def context(self) -> int | None:
        """Prompt and answer together can be no longer than this, in tokens; None: unknown."""
        ...

    @property
    def adapter_names(self) -> tuple[str, ...]:
        """Live adapters, in the order they came."""
        ...

    def submit(self, request: GenerationRequest) -> int:
        """Takes a request; its work begins with the next steps.

        Returns:
            An id never used again.

        Raises:
            ModelError: the prompt is empty or leaves no room in the context, or the adapter is not known.
        """
        ...

    def cancel(self, request_id: int) -> None:
        """Ends a request and frees its place; no more deltas come. An id that is done or unknown is no error."""
        ...

    def step(self) -> list[Delta]:
        """Works a little: at most one token for each answer under way. Nothing to do gives an empty list at once."""
        ...

    def stats(self) -> EngineStats:
        """Counters, now."""
        ...

    def add_adapter(self, name: str, path: Path) -> None:
        """Loads an adapter under a new name.

        Raises:
            ModelError: the name is taken, or the adapter cannot be served live; the message says what to do.
        """
        ...

    def replace_adapter(self, name: str, path: Path) -> None:
        """Loads new weights under a name in use: requests under way finish with the old, later ones see none of it."""
        ...

    def remove_adapter(self, name: str) -> None:
        """Drops an adapter; requests under way finish with it.

        Raises:
            ModelError: there is no such adapter.
        """
        ...

    def generate(self, requests: Iterable[GenerationRequest]) -> Iterator[tuple[int, Completion]]:
        """Yields (index of the request, a completion) as answers finish, in any order; n answers give n pairs."""
        ...

    def score(self, requests: Sequence[ScoreRequest], adapter: str | None = None) -> Iterator[tuple[int, Score]]:
        """Yields (index of the request, log-probabilities of its tokens), in any order; nothing is generated.

        Raises:
            ModelError: a request is empty or longer than the context, or this engine cannot score.
        """
        ...

    def stream(self, request: GenerationRequest) -> Iterator[Delta]:
        """Yields the answer as it is made; closing the iterator stops the work."""
        ...


class SteppedEngine:
    """`generate` and `stream` over `submit`, `cancel` and `step`: the base of all engines.

    Several streams may be under way on one thread; deltas of requests that came by `submit` alone go to whoever calls
    `step`, so the two ways are not for use at the same time.
    """

    _mail: dict[int, deque[Delta]]

    def submit(self, request: GenerationRequest) -> int:
        raise NotImplementedError

    def cancel(self, request_id: int) -> None:
        raise NotImplementedError

    def step(self) -> list[Delta]:
        raise NotImplementedError

    def stats(self) -> EngineStats:
        raise NotImplementedError

    @property
    def adapter_names(self) -> tuple[str, ...]:
        """No live adapters unless the engine can."""
        return ()

    def add_adapter(self, name: str, path: Path) -> None:
        """Refused unless the engine can."""
        raise ModelError(f"adapter {name!r} ({path}): this engine has no live adapters; merge it with tunesmith export")

    def replace_adapter(self, name: str, path: Path) -> None:
        """Refused unless the engine can."""
        self.add_adapter(name, path)

    def score(self, requests: Sequence[ScoreRequest], adapter: str | None = None) -> Iterator[tuple[int, Score]]:
        """Refused unless the engine can."""
        raise ModelError("this engine gives no log-probabilities of given tokens; set infer_backend: huggingface")

    def remove_adapter(self, name: str) -> None:
        """Refused: there is none."""
        raise ModelError(f"there is no adapter {name!r}; there are {list(self.adapter_names)}")

    def stream(self, request: GenerationRequest) -> Iterator[Delta]:
        """Yields deltas as they come; with n answers they are mixed, each with its `index`."""
        request_id = self.submit(request)
        mail = self._open_mail(request_id)
        unfinished = request.sampling.n
        try:
            while unfinished:
                while not mail:
                    self._work()
                delta = mail.popleft()
                unfinished -= delta.finish_reason is not None
                yield delta
        finally:
            self._close_mail(request_id)

    def generate(self, requests: Iterable[GenerationRequest]) -> Iterator[tuple[int, Completion]]:
        """Yields (index of the request, completion) as answers finish; requests are taken as they can be worked on."""
        coming = enumerate(requests)
        places: dict[int, int] = {}
        parts: dict[tuple[int, int], list[Delta]] = {}
        n_left: dict[int, int] = {}
        lookahead = LOOKAHEAD * self.stats().slots
        try:
            while True:
                for place, request in itertools.islice(coming, lookahead - len(places)):
                    request_id = self.submit(request)
                    self._open_mail(request_id)
                    places[request_id], n_left[request_id] = place, request.sampling.n
                if not places:
                    return
                self._work()
                for delta in [delta for request_id in places for delta in self._take_mail(request_id)]:
                    parts.setdefault((delta.request_id, delta.index), []).append(delta)
                    if delta.finish_reason is None:
                        continue
                    yield places[delta.request_id], completion_of(parts.pop((delta.request_id, delta.index)))
                    n_left[delta.request_id] -= 1
                    if not n_left[delta.request_id]:
                        self._close_mail(delta.request_id)
                        del places[delta.request_id], n_left[delta.request_id]
        finally:
            for request_id in places:
                self._close_mail(request_id)

    def _open_mail(self, request_id: int) -> deque[Delta]:
        self._mail = getattr(self, "_mail", {})
        return self._mail.setdefault(request_id, deque())

    def _take_mail(self, request_id: int) -> list[Delta]:
        mail = self._mail[request_id]
        taken = list(mail)
        mail.clear()
        return taken

    def _close_mail(self, request_id: int) -> None:
        self._mail.pop(request_id, None)
        self.cancel(request_id)

    def _work(self) -> None:
        for delta in self.step():
            if delta.request_id in self._mail:
                self._mail[delta.request_id].append(delta)


def completion_of(deltas: Sequence[Delta]) -> Completion:
    """One answer out of all its deltas."""
    last = deltas[-1]
    ids = tuple(token_id for delta in deltas for token_id in delta.token_ids)
    logprobs = tuple(entry for delta in deltas for entry in delta.logprobs)
    return Completion(ids, last.finish_reason or "length", last.end_token_id, last.index, logprobs)
