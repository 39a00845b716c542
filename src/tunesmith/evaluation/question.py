"""Multiple-choice questions and the subjects that they belong to."""

from __future__ import annotations

from dataclasses import dataclass

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
ROWS_FILE = "questions.jsonl"
"""In `save_dir`: a row a question."""
CATEGORIES = ("STEM", "Social Sciences", "Humanities", "Other")
"""The order in which results are told."""


@dataclass(frozen=True, slots=True)
class Question:
    """One question.

    Attributes:
        text: what is asked.
        choices: two to 26 answers; the first is A.
        answer: index of the right one; None where it is not published.
    """

    text: str
    choices: tuple[str, ...]
    answer: int | None

    @property
    def letters(self) -> str:
        """The letters of the choices."""
        return LETTERS[: len(self.choices)]


@dataclass(frozen=True, slots=True)
class Subject:
    """A subject of a benchmark.

    Attributes:
        name: as files and results call it.
        title: as prompts call it.
        category: what it is added up under.
        examples: questions with answers, to draw worked examples from.
        questions: what is asked.
    """

    name: str
    title: str
    category: str
    examples: tuple[Question, ...]
    questions: tuple[Question, ...]
