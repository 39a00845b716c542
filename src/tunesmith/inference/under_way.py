"""One answer under way, whatever engine makes it: its budget, its tokens so far, what ends it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from tunesmith.core.errors import ModelError
from tunesmith.inference.engine import Delta, FinishReason, GenerationRequest, TokenLogprob

Decode = Callable[[list[int]], str]
"""Token ids to text."""


def budget_of(request: GenerationRequest, context: int | None) -> int:
    """How many tokens an answer may have.

    Args:
        request: with its prompt.
        context: tokens of prompt and answer together; None: unknown.

    Raises:
        ModelError: the prompt is empty or leaves no room in the context.
    """
    n_prompt = len(request.prompt_ids)
    if n_prompt == 0:
        raise ModelError("a prompt without tokens cannot be answered")
    budget = request.sampling.budget(n_prompt)
    if context is None:
        return budget
    if n_prompt >= context:
        raise ModelError(f"the prompt has {n_prompt} tokens, the model's context holds {context}")
    return min(budget, context - n_prompt)


def has_stop_text(answer: Sequence[int], stop: Sequence[str], decode: Decode | None) -> bool:
    """Whether the newest token of an answer made one of the stop texts whole.

    Args:
        answer: ids so far, looked at after every token.
        stop: texts; empty ones count for nothing.
        decode: None finds none.
    """
    texts = [text for text in stop if text]
    if not texts or decode is None:
        return False
    # A stop text can be no longer than its bytes in tokens, plus one that it begins inside of.
    longest = max(len(text.encode(errors="replace")) for text in texts)
    recent = decode(list(answer[-(longest + 1) :]))
    return any(text in recent for text in texts)


@dataclass(slots=True, eq=False)
class UnderWay:
    """One of the n answers of a request.

    Attributes:
        request_id: of its request.
        index: which of the n answers.
        request: what was asked.
        budget: tokens that the answer may have.
        answer: token ids so far, no end token.
        finish_reason: None while it is under way.
        end_token_id: the end token that came.
    """

    request_id: int
    index: int
    request: GenerationRequest
    budget: int
    answer: list[int] = field(default_factory=list)
    finish_reason: FinishReason | None = None
    end_token_id: int | None = None

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
