"""Answers of the policy under training: drawn by the inference engine, rewarded, laid out as rows to train on.

Not here: what is learned from them (objectives/ppo.py, grpo.py) and in which updates (reinforce.py).
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from tunesmith.data.prompts import PromptRow
from tunesmith.inference.chat import ChatFormat
from tunesmith.inference.engine import Completion, GenerationRequest, SamplingParams
from tunesmith.training.rewards import Reward, Sample


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer of the policy.

    Attributes:
        prompt: number of the prompt in the training set.
        prompt_ids: its tokens.
        answer_ids: the answer's tokens, the end token among them where one came; at least one.
        sample: the same as rewards see it.
    """

    prompt: int
    prompt_ids: tuple[int, ...]
    answer_ids: tuple[int, ...]
    sample: Sample


@dataclass(frozen=True, slots=True)
class Scores:
    """What the answers of a step are worth.

    Attributes:
        totals: weighted sum of all rewards, one an answer.
        parts: name of a reward -> its scores, one an answer.
        seconds: what scoring took.
    """

    totals: list[float]
    parts: dict[str, list[float]]
    seconds: float


def sampling_of(config: Any) -> SamplingParams:
    """How answers are drawn: as the policy itself would, unless the user sets the generation keys."""
    plain: dict[str, Any] = {"temperature": 1.0, "top_p": 1.0, "top_k": 0}
    changed = {name: value for name, value in plain.items() if name not in config.explicit}
    return replace(SamplingParams.from_config(config), **changed)


class Sampler:
    """Draws answers with the weights as they are now.

    Args:
        engine: over the model that is trained.
        form: end tokens, ids to text.
        sampling: how.
        count: answers to each prompt.
        seed: of the run; every prompt of every step draws from its own seed, however prompts are batched or resumed.
    """

    def __init__(self, engine: Any, form: ChatFormat, sampling: SamplingParams, count: int, seed: int) -> None:
        self.engine = engine
        self.form = form
        self.sampling = sampling
        self.count = count
        self.seed = seed

    def answer(self, prompts: Sequence[PromptRow], numbers: Sequence[int], step: int) -> list[Answer]:
        """`count` answers to each prompt, in the order of prompts.

        Args:
            prompts: at least one.
            numbers: of the prompts in the training set.
            step: of the run.
        """
        self.engine.forget_prefixes()  # keys and values of older weights
        requests = [
            GenerationRequest(
                prompt.input_ids,
                replace(self.sampling, n=self.count, seed=seed_of(self.seed, step, number)),
                self.form.end_token_ids,
            )
            for prompt, number in zip(prompts, numbers, strict=True)
        ]
        found: dict[tuple[int, int], Completion] = {}
        for place, completion in self.engine.generate(requests):
            found[place, completion.index] = completion
        return [
            self._answer(prompts[place], numbers[place], found[place, index])
            for place in range(len(prompts))
            for index in range(self.count)
        ]

    def _answer(self, prompt: PromptRow, number: int, completion: Completion) -> Answer:
        ids = completion.token_ids
        if completion.end_token_id is not None:
            ids = (*ids, completion.end_token_id)
        text = self.form.text_of(completion, stop=self.sampling.stop)
        tokenizer: Any = self.form.tokenizer
        sample = Sample(
            prompt=prompt.asked,
            completion=text,
            reference=prompt.label_text,
            text=prompt.prompt_text + tokenizer.decode(list(ids)),
            ids=(*prompt.input_ids, *ids),
            n_tokens=len(completion.token_ids),
            is_whole=completion.finish_reason == "stop",
        )
        return Answer(number, tuple(prompt.input_ids), ids, sample)


def seed_of(*parts: int) -> int:
    """A seed of its own for each combination of numbers, 62 bits."""
    digest = hashlib.blake2b(repr(parts).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 2


class Judge:
    """Adds up several rewards of an answer.

    Args:
        rewards: name -> reward.
        weights: a factor for each; empty: all 1.
    """

    def __init__(self, rewards: dict[str, Reward], weights: Sequence[float] = ()) -> None:
        self.rewards = rewards
        self.weights = tuple(weights) or (1.0,) * len(rewards)

    def score(self, samples: Sequence[Sample]) -> Scores:
        """Every reward of every answer."""
        started = time.monotonic()
        parts = {name: [float(score) for score in reward(samples)] for name, reward in self.rewards.items()}
        totals = [
            sum(weight * scores[place] for weight, scores in zip(self.weights, parts.values(), strict=True))
            for place in range(len(samples))
        ]
        return Scores(totals, parts, time.monotonic() - started)
