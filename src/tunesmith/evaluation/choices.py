"""Asking multiple-choice questions: what a subject's prompts share is computed once, of each answer one position."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tunesmith.core.journal import Journal
from tunesmith.core.log import get_logger
from tunesmith.core.runs import Run
from tunesmith.evaluation.progress import ProgressBar
from tunesmith.evaluation.prompts import Prompt, draw_examples, letter_tokens, write_prompts
from tunesmith.evaluation.question import ROWS_FILE, Subject
from tunesmith.inference.chat import ChatFormat
from tunesmith.inference.engine import Engine
from tunesmith.inference.scoring import ScoreRequest

_logger = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Answer:
    """One answered question.

    Attributes:
        subject: name of its subject.
        category: of the subject.
        index: of the question within the subject.
        question: its text.
        choices: its choices.
        answer: letter of the right choice; None where it is not published.
        predicted: letter of the likeliest choice.
        logprobs: letter -> log-probability of its token (nats, over the whole vocabulary).
        n_examples: worked examples before it.
    """

    subject: str
    category: str
    index: int
    question: str
    choices: tuple[str, ...]
    answer: str | None
    predicted: str
    logprobs: dict[str, float]
    n_examples: int

    @property
    def is_correct(self) -> bool | None:
        """Whether the likeliest choice is right; None where nobody can say."""
        return None if self.answer is None else self.predicted == self.answer

    def as_row(self) -> dict[str, Any]:
        """As it is written."""
        return {
            "subject": self.subject,
            "category": self.category,
            "index": self.index,
            "question": self.question,
            "choices": list(self.choices),
            "answer": self.answer,
            "predicted": self.predicted,
            "correct": self.is_correct,
            "logprobs": self.logprobs,
            "n_examples": self.n_examples,
        }

    @classmethod
    def of_row(cls, row: dict[str, Any]) -> Answer:
        """The way back of `as_row`."""
        values = {name: row[name] for name in cls.__slots__}
        return cls(**(values | {"choices": tuple(row["choices"])}))


@dataclass(frozen=True, slots=True)
class ChoiceSettings:
    """How questions are put.

    Attributes:
        lang: language of the prompts, en or zh.
        n_shot: worked examples before each question.
        seed: of their drawing.
    """

    lang: str = "en"
    n_shot: int = 5
    seed: int = 42


@dataclass(slots=True)
class ChoiceEvaluation:
    """Asks the questions of some subjects and keeps each answer as soon as it is there.

    Attributes:
        engine: scores tokens.
        form: messages to ids.
        settings: how questions are put.
        folder: where answers are kept, and found by a later run; None: nowhere.
    """

    engine: Engine
    form: ChatFormat
    settings: ChoiceSettings
    folder: Path | None = None

    def run(self, subjects: Sequence[Subject], *, weights: str = "") -> list[Answer]:
        """All answers, in the order of the subjects.

        Args:
            subjects: what to ask.
            weights: tells one model from another.

        Raises:
            TunesmithError: the folder holds answers to something else.
        """
        asked = [(subject, self._prompts(subject)) for subject in subjects]
        journal = self._journal(asked, weights)
        total = sum(len(prompts) for _, prompts in asked)
        known = journal.begin(total) if journal else []
        answers = {(answer.subject, answer.index): answer for answer in map(Answer.of_row, known)}
        try:
            with ProgressBar("questions", total, run=Run(self.folder) if self.folder else None) as bar:
                for subject, prompts in asked:
                    for answer in self._ask(subject, prompts, answers):
                        answers[answer.subject, answer.index] = answer
                        if journal:
                            journal.append(answer.as_row())
                        bar.show(len(answers), score_so_far(answers.values()))
                    _tell(subject, answers)
        finally:
            if journal:
                journal.close()
        ordered = [answers[subject.name, index] for subject, prompts in asked for index in range(len(prompts))]
        if journal:
            journal.rewrite([answer.as_row() for answer in ordered])
        return ordered

    def _prompts(self, subject: Subject) -> list[Prompt]:
        examples = draw_examples(subject, self.settings.n_shot, self.settings.seed)
        prompts = write_prompts(self.form, subject, examples, self.settings.lang, self.engine.context)
        short = sum(prompt.n_examples < len(examples) for prompt in prompts)
        if short:
            _logger.warning("%s: %d prompts have fewer examples, to fit into the context", subject.name, short)
        return prompts

    def _journal(self, asked: Sequence[tuple[Subject, list[Prompt]]], weights: str) -> Journal | None:
        if self.folder is None:
            return None
        digest = hashlib.sha256(weights.encode())
        for subject, prompts in asked:
            rights = [question.answer for question in subject.questions]
            digest.update(json.dumps([subject.name, rights, [prompt.ids for prompt in prompts]]).encode())
        return Journal(self.folder / ROWS_FILE, digest.hexdigest())

    def _ask(
        self, subject: Subject, prompts: Sequence[Prompt], known: dict[tuple[str, int], Answer]
    ) -> Iterator[Answer]:
        """Answers to the questions of a subject that are not known yet."""
        open_ones = [index for index in range(len(prompts)) if (subject.name, index) not in known]
        requests = [
            ScoreRequest(prompts[i].ids, candidates=letter_tokens(self.form, subject.questions[i].letters))
            for i in open_ones
        ]
        for place, score in self.engine.score(requests):
            index = open_ones[place]
            question = subject.questions[index]
            logprobs = dict(zip(question.letters, (round(value, 6) for value in score.logprobs), strict=True))
            best = max(zip(score.logprobs, question.letters, strict=True), key=lambda pair: pair[0])[1]
            yield Answer(
                subject=subject.name,
                category=subject.category,
                index=index,
                question=question.text,
                choices=question.choices,
                answer=None if question.answer is None else question.letters[question.answer],
                predicted=best,
                logprobs=logprobs,
                n_examples=prompts[index].n_examples,
            )


def score_so_far(answers: Any) -> str:
    """Share of right answers among those that can be judged, in words."""
    judged = [answer.is_correct for answer in answers if answer.is_correct is not None]
    return f"{100 * sum(judged) / len(judged):.1f} % right" if judged else ""


def _tell(subject: Subject, answers: dict[tuple[str, int], Answer]) -> None:
    own = [answer for (name, _), answer in answers.items() if name == subject.name]
    _logger.info("%s: %d questions %s", subject.name, len(own), score_so_far(own))
