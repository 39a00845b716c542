"""Logits to one token. One row at a time, so that requests of a batch may ask for different things."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from tunesmith.inference.engine import GenerationRequest, SamplingParams, TokenLogprob

_STRIDE = 0x9E3779B97F4A7C15
"""Far apart and odd: the answers of one request get seeds that another request is not likely to name."""


def seed_of(seed: int, index: int) -> int:
    """The seed of one of a request's answers, that of the first being the request's own."""
    return (seed + index * _STRIDE) % 2**63


def make_generator(seed: int | None, index: int = 0) -> torch.Generator:
    """A generator of its own for one answer.

    Args:
        seed: of the request; None: drawn from torch's global generator.
        index: which of the request's answers; the first draws with the seed itself.
    """
    if seed is None:
        seed = int(torch.randint(2**62, (1,)).item())
    return torch.Generator().manual_seed(seed_of(seed, index))


def penalise_repetition(logits: torch.Tensor, seen: Sequence[int], penalty: float) -> torch.Tensor:
    """Divides positive and multiplies negative logits (V,) of tokens that came before (arXiv 1909.05858)."""
    if penalty == 1.0 or not seen:
        return logits
    ids = torch.tensor(sorted(set(seen)), device=logits.device)
    chosen = logits[ids]
    return logits.index_put((ids,), torch.where(chosen > 0, chosen / penalty, chosen * penalty))


def penalise_answer(logits: torch.Tensor, answer: Sequence[int], presence: float, frequency: float) -> torch.Tensor:
    """Subtracts `presence` once and `frequency` for each time that a token is in the answer, from logits (V,)."""
    if not answer or not (presence or frequency):
        return logits
    ids, counts = torch.tensor(answer, device=logits.device).unique(return_counts=True)
    return logits.index_add(0, ids, -(presence + frequency * counts).to(logits.dtype))


def allow_only(logits: torch.Tensor, allowed: Any) -> torch.Tensor:
    """Logits (V,) with all but some tokens at -inf.

    Args:
        logits: (V,).
        allowed: (V,) boolean tensor, a sequence of ids, or None for all; a shorter tensor allows none of the rest.
    """
    if allowed is None:
        return logits
    if isinstance(allowed, torch.Tensor) and allowed.dtype == torch.bool:
        ids = allowed.nonzero()[:, 0].to(logits.device)
    else:
        ids = torch.as_tensor(allowed, dtype=torch.long, device=logits.device)
    return torch.full_like(logits, float("-inf")).index_copy(0, ids, logits[ids])


def adjust(logits: torch.Tensor, request: GenerationRequest, answer: Sequence[int]) -> torch.Tensor:
    """Logits (V,) of one row after penalties, biases and constraints, in float32.

    Args:
        logits: (V,) as the model gives them.
        request: what was asked.
        answer: ids so far.
    """
    sampling = request.sampling
    logits = logits.float()
    if sampling.repetition_penalty != 1.0:
        logits = penalise_repetition(logits, [*request.prompt_ids, *answer], sampling.repetition_penalty)
    logits = penalise_answer(logits, answer, sampling.presence_penalty, sampling.frequency_penalty)
    if sampling.logit_bias:
        ids, values = zip(*sampling.logit_bias, strict=True)
        logits = logits.index_add(
            0, torch.tensor(ids, device=logits.device), torch.tensor(values, device=logits.device, dtype=logits.dtype)
        )
    if request.constraint is not None:
        logits = allow_only(logits, request.constraint(answer))
    return logits


def is_plain(request: GenerationRequest) -> bool:
    """Whether the most likely token is taken as the model says it."""
    sampling = request.sampling
    changes = (sampling.presence_penalty, sampling.frequency_penalty, sampling.logit_bias, request.constraint)
    return sampling.is_greedy and sampling.repetition_penalty == 1.0 and not any(changes)


def logprob_of(logits: torch.Tensor, token_id: int, count: int) -> TokenLogprob:
    """The log-probability of a token, and those of the `count` most likely, from the model's logits (V,)."""
    logprobs = torch.log_softmax(logits.float(), dim=-1)
    values, ids = torch.topk(logprobs, min(count, logprobs.numel()))
    return TokenLogprob(token_id, float(logprobs[token_id]), tuple(zip(ids.tolist(), values.tolist(), strict=True)))


def keep_likely(logits: torch.Tensor, top_k: int, top_p: float) -> tuple[torch.Tensor, torch.Tensor]:
    """The candidates that top_k, then top_p leave.

    Args:
        logits: (V,), already divided by the temperature.
        top_k: 0 keeps all.
        top_p: at least one candidate stays.

    Returns:
        Probabilities that sum to 1 and token ids, most likely first.
    """
    count = min(top_k, logits.numel()) if top_k > 0 else logits.numel()
    values, ids = torch.topk(logits, count)
    probabilities = torch.softmax(values, dim=-1)
    if top_p < 1.0:
        before = probabilities.cumsum(-1) - probabilities
        n_kept = max(1, int((before < top_p).sum()))
        probabilities, ids = probabilities[:n_kept], ids[:n_kept]
    return probabilities / probabilities.sum(), ids


def choose(logits: torch.Tensor, sampling: SamplingParams, generator: torch.Generator) -> int | None:
    """The next token of one row; None when none is possible.

    Args:
        logits: (V,) of the last position, after `adjust`.
        sampling: how to choose.
        generator: of this answer; not touched when greedy.
    """
    if sampling.is_greedy:
        best = int(logits.argmax())
        return None if logits[best] == float("-inf") else best
    logits = logits.cpu()
    if not bool((logits > float("-inf")).any()):
        return None
    probabilities, ids = keep_likely(logits / sampling.temperature, sampling.top_k, sampling.top_p)
    return int(ids[torch.multinomial(probabilities, 1, generator=generator)])
