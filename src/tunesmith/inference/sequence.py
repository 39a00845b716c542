"""One answer under way in the transformers engine: what the model has seen of it, and what it sees next."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch

from tunesmith.inference.keys_values import KeyValues
from tunesmith.inference.under_way import UnderWay
from tunesmith.models.live_adapter import LiveAdapter


@dataclass(slots=True, eq=False, kw_only=True)
class Sequence(UnderWay):
    """One of the n answers of a request, with its prompt.

    Attributes:
        generator: draws for this answer alone.
        adapter: as it was when the request came.
        values: keys and values of the first `n_cached` tokens.
        n_cached: tokens of prompt and answer that the model has seen.
        n_reused: those of them that another sequence had seen.
        n_trusted: tokens that the next draft may have; None: as many as the drafter gives.
    """

    generator: torch.Generator
    adapter: LiveAdapter | None = None
    values: KeyValues = field(default_factory=KeyValues)
    n_cached: int = 0
    n_reused: int = 0
    n_trusted: int | None = None
    prompt: np.ndarray = field(init=False)

    def __post_init__(self) -> None:
        self.prompt = np.asarray(self.request.prompt_ids, dtype=np.int64)

    @property
    def key(self) -> int | None:
        """What the keys and values depend on besides the ids."""
        return self.adapter.version if self.adapter else None

    @property
    def length(self) -> int:
        """Tokens of prompt and answer."""
        return len(self.prompt) + len(self.answer)

    @property
    def n_reserved(self) -> int:
        """Tokens it may come to."""
        return len(self.prompt) + self.budget

    def ids(self, begin: int, end: int) -> np.ndarray:
        """Tokens [begin, end) of prompt and answer."""
        n_prompt = len(self.prompt)
        if begin >= n_prompt:
            return np.asarray(self.answer[begin - n_prompt : end - n_prompt], dtype=np.int64)
        if end <= n_prompt:
            return self.prompt[begin:end]
        return np.concatenate([self.prompt[begin:], np.asarray(self.answer[: end - n_prompt], dtype=np.int64)])


@dataclass(frozen=True, slots=True)
class Chunk:
    """Tokens of a sequence that one forward pass sees: those from `n_cached` up to `end`, and a draft behind them.

    Attributes:
        sequence: theirs.
        end: one past the last token; where it is the sequence's length, the next token can be chosen.
        draft: tokens that may come next; the pass shows which of them do.
    """

    sequence: Sequence
    end: int
    draft: tuple[int, ...] = ()

    @property
    def n_tokens(self) -> int:
        """How many."""
        return self.end - self.sequence.n_cached + len(self.draft)

    @property
    def n_logits(self) -> int:
        """Of how many of its last tokens logits are wanted."""
        return 1 + len(self.draft) if self.is_last else 0

    @property
    def is_last(self) -> bool:
        """Whether logits are wanted."""
        return self.end == self.sequence.length

    def ids(self) -> np.ndarray:
        """The tokens."""
        known = self.sequence.ids(self.sequence.n_cached, self.end)
        return np.concatenate([known, np.asarray(self.draft, dtype=np.int64)]) if self.draft else known
