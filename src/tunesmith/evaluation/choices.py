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
from tunesmith.evaluation.continuations import score_answers
from tunesmith.evaluation.progress import ProgressBar
from tunesmith.evaluation.prompts import (
    Prompt,
    Style,
    draw_examples,
    known_examples,
    lead_of,
    letter_tokens,
    warn_of_few_examples,
    write_prompts,
)
from tunesmith.evaluation.question import ROWS_FILE, Question, Subject
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
        logprobs: letter -> log-probability of its token, or of its whole choice (nats, over the whole vocabulary).
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
        by_text: whole choices are compared, each by its log-probability per byte; else letters.
        introduction: stands before the first message; None: the usual sentence.
    """

    lang: str = "en"
    n_shot: int = 5
    seed: int = 42
    by_text: bool = False
    introduction: str | None = None

    def style(self, form: ChatFormat) -> Style:
        """How questions look under a template."""
        return Style(self.lang, self.by_text, lead_of(form) if self.by_text else "", self.introduction)


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
        counts = {subject.name: len(known_examples(subject)) for subject in subjects}
        warn_of_few_examples(self.settings.n_shot, counts)
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
        prompts = write_prompts(self.form, subject, examples, self.settings.style(self.form), self.engine.context)
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
            asks: list[Any] = [subject.name, rights, [prompt.ids for prompt in prompts]]
            if self.settings.by_text:
                asks.append([prompt.answers for prompt in prompts])
            digest.update(json.dumps(asks).encode())
        return Journal(self.folder / ROWS_FILE, digest.hexdigest())

    def _ask(
        self, subject: Subject, prompts: Sequence[Prompt], known: dict[tuple[str, int], Answer]
    ) -> Iterator[Answer]:
        """Answers to the questions of a subject that are not known yet."""
        open_ones = [index for index in range(len(prompts)) if (subject.name, index) not in known]
        for place, scores in self._score([prompts[i] for i in open_ones], [subject.questions[i] for i in open_ones]):
            index = open_ones[place]
            question = subject.questions[index]
            worth = scores
            if self.settings.by_text:
                sizes = [max(1, len(choice.encode())) for choice in question.choices]
                worth = [score / size for score, size in zip(scores, sizes, strict=True)]
            yield Answer(
                subject=subject.name,
                category=subject.category,
                index=index,
                question=question.text,
                choices=question.choices,
                answer=None if question.answer is None else question.letters[question.answer],
                predicted=question.letters[worth.index(max(worth))],
                logprobs=dict(zip(question.letters, (round(score, 6) for score in scores), strict=True)),
                n_examples=prompts[index].n_examples,
            )

    def _score(self, prompts: Sequence[Prompt], questions: Sequence[Question]) -> Iterator[tuple[int, list[float]]]:
        """Yields (place, log-probability of each choice) in any order."""
        if self.settings.by_text:
            for place, found in score_answers(self.engine, [(prompt.ids, prompt.answers) for prompt in prompts]):
                yield place, [sum(values) for values in found]
            return
        requests = [
            ScoreRequest(prompt.ids, candidates=letter_tokens(self.form, question.letters))
            for prompt, question in zip(prompts, questions, strict=True)
        ]
        for place, score in self.engine.score(requests):
            yield place, list(score.logprobs)


def score_so_far(answers: Any) -> str:
    """Share of right answers among those that can be judged, in words."""
    judged = [answer.is_correct for answer in answers if answer.is_correct is not None]
    return f"{100 * sum(judged) / len(judged):.1f} % right" if judged else ""


def _tell(subject: Subject, answers: dict[tuple[str, int], Answer]) -> None:
    own = [answer for (name, _), answer in answers.items() if name == subject.name]
    _logger.info("%s: %d questions %s", subject.name, len(own), score_so_far(own))
