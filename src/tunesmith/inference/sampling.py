"""Logits to one token. One row at a time, so that requests of a batch may ask for different things."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from tunesmith.inference.engine import SamplingParams


def make_generator(seed: int | None) -> torch.Generator:
    """A generator of its own for one request; without a seed it is drawn from torch's global one."""
    if seed is None:
        seed = int(torch.randint(2**62, (1,)).item())
    return torch.Generator().manual_seed(seed)


def penalise_repetition(logits: torch.Tensor, seen: Sequence[int], penalty: float) -> torch.Tensor:
    """Divides positive and multiplies negative logits (V,) of tokens that came before (arXiv 1909.05858)."""
    if penalty == 1.0 or not seen:
        return logits
    ids = torch.tensor(sorted(set(seen)), device=logits.device)
    chosen = logits[ids]
    return logits.index_put((ids,), torch.where(chosen > 0, chosen / penalty, chosen * penalty))


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


def choose(logits: torch.Tensor, sampling: SamplingParams, seen: Sequence[int], generator: torch.Generator) -> int:
    """The next token of one row.

    Args:
        logits: (V,) of the last position.
        sampling: how to choose.
        seen: prompt and answer so far, for the repetition penalty.
        generator: of this request; not touched when greedy.
    """
    logits = penalise_repetition(logits.float(), seen, sampling.repetition_penalty)
    if sampling.is_greedy:
        return int(logits.argmax())
    probabilities, ids = keep_likely(logits.cpu() / sampling.temperature, sampling.top_k, sampling.top_p)
    return int(ids[torch.multinomial(probabilities, 1, generator=generator)])
