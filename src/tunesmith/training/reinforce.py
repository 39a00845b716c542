"""From prompts to updates: answers are drawn and rewarded, measured once, and laid out as rows for the objective.

A step of the trainer is one batch of prompts with all updates that are made from its answers, so that a checkpoint
never falls between answers and what is learned from them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import torch

from tunesmith.config.schema import RunConfig
from tunesmith.core.log import get_logger
from tunesmith.core.types import IGNORE_INDEX
from tunesmith.data.prompts import PromptRow
from tunesmith.models.forward import MicroBatch
from tunesmith.objectives.base import REFERENCE_LOGPS, Objective, Scored
from tunesmith.objectives.online import OLD_LOGPS, OLD_VALUES, AnswerColumns, OnlineObjective, Rewarded
from tunesmith.training.batches import Row, StepRows, lay_end_to_end, plan_micro_batches
from tunesmith.training.reward_model import find_reward_model
from tunesmith.training.rewards import load_rewards
from tunesmith.training.rollout import Answer, Judge, Sampler, Scores, sampling_of, seed_of
from tunesmith.training.sums import Sums

logger = get_logger(__name__)

_MOST_AT_ONCE = 64
"""Answers under way together."""
_DEAD_STEPS = 5
"""Steps in a row without any difference between rewards, after which it is said."""

Score = Callable[[MicroBatch], Scored]
"""A micro-batch to what the model in training (and its reference) make of it."""
Read = Callable[[Scored], AnswerColumns]
"""What is wanted of that, (N,) numbers each."""


def find_reinforcement(
    config: RunConfig, objective: Objective, model: Any, tokenizer: Any, prompts: Any
) -> Reinforcement | None:
    """Sampler, rewards and schedule of a run; None where the objective needs no answers.

    Args:
        config: rewards, generation keys, `num_generations`, `ppo_buffer_size`.
        objective: of the run.
        model: in training; it draws the answers, too.
        tokenizer: goes with it.
        prompts: `data.prompts.PromptRows`.

    Raises:
        ConfigError: rewards that mean nothing.
        TunesmithError: the model cannot answer.
    """
    from tunesmith.inference.opening import open_model

    if not isinstance(objective, OnlineObjective):
        return None
    rewards = dict(zip(config.reward_funcs, load_rewards(config.reward_funcs), strict=True))
    if config.reward_model:
        rewards["reward_model"] = find_reward_model(config, model, tokenizer)
    count = config.num_generations if config.stage == "grpo" else 1
    answers = config.per_device_train_batch_size * config.gradient_accumulation_steps * count
    opened = open_model(config, batch_size=min(answers, _MOST_AT_ONCE), model=model, tokenizer=tokenizer)
    sampling = sampling_of(config)
    if sampling.top_p < 1 or sampling.top_k > 0:
        logger.warning(
            "answers are drawn with top_p %g, top_k %d: tokens outside of it are never tried, and ratios are of the "
            "whole distribution; leave both out to draw as the policy would",
            sampling.top_p,
            sampling.top_k,
        )
    return Reinforcement(
        objective,
        Sampler(opened.engine, opened.form, sampling, count, config.seed),
        Judge(rewards, config.reward_weights),
        prompts.prompts,
        updates=config.ppo_buffer_size if config.stage == "ppo" else 1,
        seed=config.seed,
    )


class Learner(Protocol):
    """What is asked of the trainer."""

    token_budget: int
    step_sums: Sums

    def measure(self, rows: Sequence[Row], read: Read) -> list[AnswerColumns]:
        """What model and reference say of each row, without gradient and dropout."""
        ...

    def gather(self, numbers: torch.Tensor) -> torch.Tensor:
        """(N,) of this process to those of all."""
        ...


class Reinforcement:
    """Makes the updates of a step.

    Args:
        objective: what is learned from the answers.
        sampler: draws them.
        judge: rewards them.
        prompts: all prompts of the training set.
        updates: parts that the answers of a step are trained on in, each epoch.
        seed: of the run.
    """

    def __init__(
        self,
        objective: OnlineObjective,
        sampler: Sampler,
        judge: Judge,
        prompts: Sequence[PromptRow],
        *,
        updates: int = 1,
        seed: int = 42,
    ) -> None:
        self.objective = objective
        self.sampler = sampler
        self.judge = judge
        self.prompts = prompts
        self.updates = updates
        self.seed = seed
        self._n_dead = 0
        self._has_warned: set[str] = set()

    def make(self, learner: Learner, numbers: Sequence[int], step: int) -> list[StepRows]:
        """Answers to some prompts, as the rows of each update in order.

        Args:
            learner: the trainer.
            numbers: of the prompts in the training set.
            step: of the run, from 0.
        """
        answers = self.sampler.answer([self.prompts[number] for number in numbers], numbers, step)
        scores = self.judge.score([answer.sample for answer in answers])
        rows = [_row(answer) for answer in answers]
        measured = self._measured(learner, rows)
        lengths = [len(answer.answer_ids) for answer in answers]
        totals = torch.tensor(scores.totals, dtype=torch.float32)
        known = Rewarded(measured, lengths, totals, self.sampler.count, learner.gather)
        columns, metrics = self.objective.columns(known)
        learner.step_sums.add(metrics)
        learner.step_sums.add(_metrics(answers, scores))
        self._watch(learner.gather(totals))
        full = [_with_columns(row, before | after) for row, before, after in zip(rows, measured, columns, strict=True)]
        kept = [row for row, answer in zip(full, answers, strict=True) if self._keeps(answer)]
        return self._parts(kept, step)

    def _keeps(self, answer: Answer) -> bool:
        return answer.sample.is_whole or not self.objective.skips_truncated

    def _measured(self, learner: Learner, rows: Sequence[Row]) -> list[AnswerColumns]:
        wanted = self.objective.measures
        if not wanted:
            return [{} for _ in rows]

        def read(scored: Scored) -> AnswerColumns:
            columns: AnswerColumns = {}
            if OLD_LOGPS in wanted:
                columns[OLD_LOGPS] = scored.per_token_logps()
            if REFERENCE_LOGPS in wanted:
                columns[REFERENCE_LOGPS] = scored.per_target[REFERENCE_LOGPS]
            if OLD_VALUES in wanted and scored.value_head is not None:
                columns[OLD_VALUES] = scored.value_head(scored.hidden)
            return columns

        return learner.measure(rows, read)

    def _parts(self, rows: Sequence[Row], step: int) -> list[StepRows]:
        """The rows of every update: in each epoch all of them, in an order that step and seed decide."""
        found = []
        for epoch in range(self.objective.epochs):
            generator = torch.Generator().manual_seed(seed_of(self.seed, step, epoch))
            order: list[int] = torch.randperm(len(rows), generator=generator).tolist()
            size = -(-len(rows) // self.updates) or 1
            for part in range(self.updates):
                chosen = sorted(order[part * size : (part + 1) * size]) if self.updates > 1 else range(len(rows))
                found.append(StepRows([rows[place] for place in chosen]))
        return found

    def _watch(self, totals: torch.Tensor) -> None:
        """Says by name what is going wrong, once each."""
        self._n_dead = 0 if bool((totals != totals[0]).any()) else self._n_dead + 1
        if self._n_dead == _DEAD_STEPS:
            self._warn(
                "dead reward",
                f"every answer of the last {_DEAD_STEPS} steps was rewarded alike ({totals[0].item():.4g}): nothing is "
                "learned. Make the reward tell better answers from worse, or the task easier",
            )

    def _warn(self, name: str, text: str) -> None:
        if name not in self._has_warned:
            self._has_warned.add(name)
            logger.warning("alarm: %s: %s", name, text)


def _row(answer: Answer) -> Row:
    labels = [IGNORE_INDEX] * len(answer.prompt_ids) + list(answer.answer_ids)
    return Row([*answer.prompt_ids, *answer.answer_ids], labels, answer.prompt)


def _with_columns(row: Row, columns: AnswerColumns) -> Row:
    lists: dict[str, list[float]] = {name: column.tolist() for name, column in columns.items()}
    return Row(row.input_ids, row.labels, row.number, columns=lists)


def _metrics(answers: Sequence[Answer], scores: Scores) -> dict[str, tuple[torch.Tensor, float]]:
    """Means over answers: reward, its parts, lengths."""
    count = float(len(answers))
    sums = {
        "reward": sum(scores.totals),
        "answers/length": float(sum(len(answer.answer_ids) for answer in answers)),
        "answers/truncated": float(sum(not answer.sample.is_whole for answer in answers)),
    }
    if len(scores.parts) > 1:
        sums |= {f"reward/{name}": sum(part) for name, part in scores.parts.items()}
    return {name: (torch.tensor(value), count) for name, value in sums.items()}


def measure_rows(rows: Sequence[Row], budget: int, score: Score, read: Read) -> list[AnswerColumns]:
    """Runs rows through a model in micro-batches and gives each its own part of what is read.

    Args:
        rows: of one sequence each, in any order.
        budget: tokens of a micro-batch.
        score: runs one.
        read: gives columns of (N,) numbers.
    """
    found: dict[int, AnswerColumns] = {}
    for group in plan_micro_batches([len(row.input_ids) for row in rows], budget):
        scored = score(lay_end_to_end([rows[place] for place in group]))
        lengths: list[int] = scored.lengths().tolist()
        parts = {name: column.float().cpu().split(lengths) for name, column in read(scored).items()}
        for index, place in enumerate(group):
            found[place] = {name: columns[index] for name, columns in parts.items()}
    return [found[place] for place in range(len(rows))]
