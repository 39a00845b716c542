"""One answer under way: its ids, its budget, when it ends."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch

from tunesmith.inference.ending import Decode, has_stop_text
from tunesmith.inference.engine import Delta, FinishReason, GenerationRequest, TokenLogprob
from tunesmith.inference.keys_values import KeyValues
from tunesmith.models.live_adapter import LiveAdapter


@dataclass(slots=True, eq=False)
class Sequence:
    """One of the n answers of a request, with its prompt.

    Attributes:
        request_id: of its request.
        index: which of the n answers.
        request: what was asked.
        budget: tokens that the answer may have.
        generator: draws for this answer alone.
        adapter: as it was when the request came.
        answer: token ids so far, no end token.
        values: keys and values of the first `n_cached` tokens.
        n_cached: tokens of prompt and answer that the model has seen.
        n_reused: those of them that another sequence had seen.
        n_trusted: tokens that the next draft may have; None: as many as the drafter gives.
        finish_reason: None while it is under way.
        end_token_id: the end token that came.
    """

    request_id: int
    index: int
    request: GenerationRequest
    budget: int
    generator: torch.Generator
    adapter: LiveAdapter | None = None
    answer: list[int] = field(default_factory=list)
    values: KeyValues = field(default_factory=KeyValues)
    n_cached: int = 0
    n_reused: int = 0
    n_trusted: int | None = None
    finish_reason: FinishReason | None = None
    end_token_id: int | None = None
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

    def accept(self, token_id: int, decode: Decode | None, logprob: TokenLogprob | None = None) -> Delta:
        """Takes the next token and finds out whether the answer is finished."""
        if token_id in self.request.end_token_ids:
            return self.end(token_id)
        self.answer.append(token_id)
        if has_stop_text(self.answer, self.request.sampling.stop, decode):
            self.finish_reason = "stop"
        elif len(self.answer) >= self.budget:
            self.finish_reason = "length"
        logprobs = () if logprob is None else (logprob,)
        return Delta((token_id,), self.finish_reason, None, self.request_id, self.index, logprobs)

    def end(self, token_id: int | None = None) -> Delta:
        """Ends the answer without another token."""
        self.finish_reason, self.end_token_id = "stop", token_id
        return Delta((), "stop", token_id, self.request_id, self.index)


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
