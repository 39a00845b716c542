"""The engine interface: token ids in, token ids out. Text, templates, tools and reasoning live above it, in chat.py."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol, runtime_checkable

if TYPE_CHECKING:
    from tunesmith.config.schema import RunConfig

FinishReason = Literal["stop", "length"]


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
        seed: each request draws from its own generator, so its answer does not depend on its neighbours in a batch.
        stop: texts that end the answer; need an engine that was given `decode`.
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
    """One answer to make.

    Attributes:
        prompt_ids: token ids, not padded, at least one.
        sampling: how to choose.
        end_token_ids: any of these ends the answer.
    """

    prompt_ids: Sequence[int]
    sampling: SamplingParams = SamplingParams()
    end_token_ids: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Completion:
    """One finished answer.

    Attributes:
        token_ids: the answer without the end token.
        finish_reason: `stop`: an end token or a stop text came; `length`: the budget is used up.
        end_token_id: the end token that came, None when none did.
    """

    token_ids: tuple[int, ...]
    finish_reason: FinishReason
    end_token_id: int | None = None


@dataclass(frozen=True, slots=True)
class Delta:
    """What one step of a stream brings.

    Attributes:
        token_ids: new tokens, never an end token; may be empty in the last delta.
        finish_reason: set in the last delta only.
        end_token_id: the end token that came, in the last delta.
    """

    token_ids: tuple[int, ...]
    finish_reason: FinishReason | None = None
    end_token_id: int | None = None


@runtime_checkable
class Engine(Protocol):
    """What makes tokens. Engines are not thread-safe unless they say so."""

    def generate(self, requests: Sequence[GenerationRequest]) -> Iterator[tuple[int, Completion]]:
        """Yields (index of the request, its completion) as answers finish, in any order."""
        ...

    def stream(self, request: GenerationRequest) -> Iterator[Delta]:
        """Yields the answer as it is made; closing the iterator stops the work."""
        ...
