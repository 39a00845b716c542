"""From the fields of a request to SamplingParams; what is not said is as the configuration says."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from tunesmith.inference.engine import SamplingParams
from tunesmith.serving.errors import bad_request
from tunesmith.serving.requests import ChatRequest, CompletionRequest, Sampled

_SAME = (
    "do_sample", "temperature", "top_p", "seed", "presence_penalty", "frequency_penalty", "repetition_penalty", "n",
)  # fmt: skip


def sampling_of(request: Sampled, defaults: SamplingParams, vocabulary_size: int) -> SamplingParams:
    """How tokens are chosen for this request.

    A temperature or top_p that is asked for draws, even where the configuration says `do_sample: false`; temperature 0
    never does.

    Raises:
        ApiError: two fields contradict each other.
    """
    changes: dict[str, Any] = {name: value for name in _SAME if (value := getattr(request, name)) is not None}
    if "do_sample" not in changes and {"temperature", "top_p", "top_k"} & request.given():
        changes["do_sample"] = True
    if request.top_k is not None:
        changes["top_k"] = max(0, request.top_k)
    limit = _most_tokens(request)
    if limit is not None:
        changes["max_new_tokens"] = limit
    if request.stop is not None:
        changes["stop"] = (request.stop,) if isinstance(request.stop, str) else tuple(request.stop)
    changes["logprobs"] = _logprobs(request)
    changes["logit_bias"] = tuple(_bias(request.logit_bias or {}, vocabulary_size))
    if changes.get("n", 1) > 1 and defaults.num_beams > 1:
        raise bad_request("n: this server searches with beams (num_beams), which gives one answer", "n")
    return replace(defaults, **changes)


def _bias(given: Mapping[str, float], vocabulary_size: int) -> Iterator[tuple[int, float]]:
    for name, value in given.items():
        if not (name.isascii() and name.isdigit() and int(name) < vocabulary_size):
            raise bad_request(
                f"logit_bias: {name[:20]!r} is no token id; they end at {vocabulary_size - 1}", "logit_bias"
            )
        yield int(name), value


def _most_tokens(request: Sampled) -> int | None:
    newer = request.max_completion_tokens if isinstance(request, ChatRequest) else None
    if newer is not None and request.max_tokens is not None and newer != request.max_tokens:
        raise bad_request("max_tokens and max_completion_tokens differ; send one of them", "max_tokens")
    return newer if newer is not None else request.max_tokens


def _logprobs(request: Sampled) -> int | None:
    if isinstance(request, CompletionRequest):
        if request.logprobs is not None and request.echo:
            raise bad_request("logprobs of the prompt are not built; leave echo out", "echo")
        return request.logprobs
    if not isinstance(request, ChatRequest):
        return None
    if request.top_logprobs is not None and not request.logprobs:
        raise bad_request("top_logprobs needs logprobs: true", "top_logprobs")
    return (request.top_logprobs or 0) if request.logprobs else None


def check_room(n_prompt: int, request: Sampled, sampling: SamplingParams, context: int | None) -> SamplingParams:
    """Holds prompt and answer within the model's context.

    Returns:
        The parameters, their budget cut to what is left unless the client named it.

    Raises:
        ApiError: the prompt fills the context, or the tokens asked for do not fit behind it.
    """
    if context is None:
        return sampling
    room = context - n_prompt
    if room <= 0:
        raise bad_request(
            f"the prompt has {n_prompt} tokens, this model's context holds {context} with the answer",
            "messages" if isinstance(request, ChatRequest) else "prompt",
            "context_length_exceeded",
        )
    asked = _most_tokens(request)
    if asked is not None and asked > room:
        raise bad_request(
            f"max_tokens: {asked} tokens do not fit behind a prompt of {n_prompt} in a context of {context}; "
            f"ask for at most {room}",
            "max_tokens",
            "context_length_exceeded",
        )
    return replace(sampling, max_new_tokens=min(sampling.budget(n_prompt), room))
