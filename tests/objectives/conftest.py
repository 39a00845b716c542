"""Micro-batches made of log-probabilities that a test writes down."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch

from tunesmith.objectives.base import REFERENCE_LOGPS, Scored


def make_scored(
    sequences: Sequence[Sequence[float]],
    reference: Sequence[Sequence[float]] | None = None,
    *,
    rows: int,
    weights: Sequence[float] | None = None,
    **facts: Any,
) -> Scored:
    """A micro-batch whose tokens have these log-probabilities.

    The vocabulary has two tokens and the hidden states are the logits: log p for token 0, log(1 - p) for token 1, so
    that the log-probability of target 0 is the given number and gradients flow.
    """
    logps = torch.tensor([value for sequence in sequences for value in sequence], dtype=torch.float64)
    hidden = torch.stack([logps, torch.log(-torch.expm1(logps))], dim=1).float().requires_grad_()
    per_target = {}
    if reference is not None:
        per_target[REFERENCE_LOGPS] = torch.tensor([value for sequence in reference for value in sequence])
    return Scored(
        hidden,
        lambda logits: logits,
        torch.zeros(len(logps), dtype=torch.long),
        sequence_of=torch.arange(len(sequences)).repeat_interleave(torch.tensor([len(s) for s in sequences])),
        n_sequences=len(sequences),
        per_target=per_target,
        per_row={
            "weight": torch.tensor(weights or [1.0] * rows),
            "desirable": torch.tensor(facts.pop("desirable", [True] * rows)),
        },
        **facts,
    )


@pytest.fixture
def scored() -> Callable[..., Scored]:
    return make_scored
