"""Log-probabilities of several answers to a prompt: by one pass where each is a single token, else by one pass each."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from tunesmith.inference.engine import Engine
from tunesmith.inference.scoring import ScoreRequest

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Asked = tuple[Sequence[int], Sequence[tuple[int, ...]]]
"""Tokens of a prompt, and those of each answer that is to be scored after it."""


def score_answers(engine: Engine, items: Sequence[Asked]) -> Iterator[tuple[int, list[tuple[float, ...]]]]:
    """Yields (index of the item, log-probabilities in nats of the tokens of each answer) as items are done.

    Raises:
        ModelError: an item is empty or longer than the context.
    """
    requests: list[ScoreRequest] = []
    places: list[tuple[int, int]] = []
    for index, (prompt, answers) in enumerate(items):
        if all(len(answer) == 1 for answer in answers):
            requests.append(ScoreRequest(prompt, candidates=tuple(answer[0] for answer in answers)))
            places.append((index, -1))
            continue
        for number, answer in enumerate(answers):
            requests.append(ScoreRequest(prompt, continuation=answer))
            places.append((index, number))
    waiting: dict[int, dict[int, tuple[float, ...]]] = {}
    for place, score in engine.score(requests):
        index, number = places[place]
        if number < 0:
            yield index, [(value,) for value in score.logprobs]
            continue
        found = waiting.setdefault(index, {})
        found[number] = score.logprobs
        if len(found) == len(items[index][1]):
            del waiting[index]
            yield index, [found[number] for number in range(len(found))]


def split_text(tokenizer: PreTrainedTokenizerBase, prompt: str, answer: str) -> tuple[list[int], tuple[int, ...]]:
    """Tokens of a prompt and of the text that follows, as they are in the whole text where that is possible.

    Blanks at the end of the prompt go to the answer, where tokenizers put them.

    Args:
        tokenizer: puts its beginning token before the prompt, if it has that habit.
        prompt: may be empty where the tokenizer has a beginning or end token to start from.
        answer: not empty.
    """
    kept = prompt.rstrip()
    answer = prompt[len(kept) :] + answer
    head = list(tokenizer.encode(kept)) if kept else []
    if not head:
        start = tokenizer.bos_token_id if tokenizer.bos_token_id is not None else tokenizer.eos_token_id
        return [start], tuple(tokenizer.encode(answer, add_special_tokens=False))
    whole = list(tokenizer.encode(kept + answer))
    if whole[: len(head)] == head:
        return head, tuple(whole[len(head) :])
    return head, tuple(tokenizer.encode(answer, add_special_tokens=False))
