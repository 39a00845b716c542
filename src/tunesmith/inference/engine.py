"""The engine interface: token ids in and out, requests come and go between steps. Text and templates live above it.

A front end that serves many users talks to `runner.py`, which owns an engine in a thread; scripts use `generate`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal, Protocol, runtime_checkable

if TYPE_CHECKING:
    from pathlib import Path

    from tunesmith.config.schema import RunConfig
    from tunesmith.inference.scoring import Score, ScoreRequest

FinishReason = Literal["stop", "length"]
Constraint = Callable[[Sequence[int]], Any]
"""Given the answer so far, the tokens that may come next: a (V,) boolean tensor, a sequence of ids, or None for all.
Nothing allowed ends the answer. One constraint serves all n answers, so what it remembers it finds by the ids given."""


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
        drafted_tokens: guessed ahead and verified.
        accepted_tokens: those of them that were right.
    """

    waiting: int = 0
    running: int = 0
    slots: int = 1
    prompt_tokens: int = 0
    cached_tokens: int = 0
    generated_tokens: int = 0
    cache_bytes: int = 0
    drafted_tokens: int = 0
    accepted_tokens: int = 0


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
        """Works a little: for each answer under way one delta at most, of one token unless tokens are drafted.

        Nothing to do gives an empty list at once.
        """
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


def joined(deltas: Sequence[Delta]) -> Delta:
    """Deltas of one answer, in order, as one."""
    last = deltas[-1]
    if len(deltas) == 1:
        return last
    ids = tuple(token_id for delta in deltas for token_id in delta.token_ids)
    logprobs = tuple(entry for delta in deltas for entry in delta.logprobs)
    return replace(last, token_ids=ids, logprobs=logprobs)


def completion_of(deltas: Sequence[Delta]) -> Completion:
    """One answer out of all its deltas."""
    whole = joined(deltas)
    return Completion(whole.token_ids, whole.finish_reason or "length", whole.end_token_id, whole.index, whole.logprobs)
