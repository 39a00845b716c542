"""Questions to messages: worked examples, then the question; the model's next token is its answer."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tunesmith.core.errors import DataError, ModelError, Problem
from tunesmith.core.log import get_logger
from tunesmith.core.types import Message
from tunesmith.evaluation.question import Question, Subject
from tunesmith.inference.chat import ChatFormat

_logger = get_logger(__name__)
INTRODUCTIONS = {
    "en": "Here are multiple-choice questions on {title}, each with its right answer.\n\n",
    "zh": "以下是关于{title}的单项选择题，每题附有正确答案。\n\n",
}
ANSWER_MARKS = {"en": "Answer:", "zh": "答案："}


def known_examples(subject: Subject) -> list[Question]:
    """The worked examples of a subject whose answer is known."""
    return [example for example in subject.examples if example.answer is not None]


def warn_of_few_examples(n_shot: int, counts: Mapping[str, int]) -> None:
    """Says where fewer worked examples are there than asked for; where there are none, nobody expects them.

    Args:
        n_shot: how many are asked for.
        counts: subject or file -> worked examples there.
    """
    few = [f"{name} ({count})" for name, count in counts.items() if 0 < count < n_shot]
    if few:
        others = f" and {len(few) - 3} more" if len(few) > 3 else ""
        _logger.warning(
            "n_shot: %d, but fewer worked examples in %s%s: all are shown", n_shot, ", ".join(few[:3]), others
        )


def draw_examples(subject: Subject, n_shot: int, seed: int) -> list[Question]:
    """The worked examples of a subject: the same for all its questions, so that their part is computed once.

    Args:
        subject: whose examples.
        n_shot: how many; fewer where the subject has no more.
        seed: each subject draws by itself, so leaving one out changes no other.
    """
    known = known_examples(subject)
    return random.Random(f"{seed} {subject.name}").sample(known, min(n_shot, len(known)))


@dataclass(frozen=True, slots=True)
class Style:
    """How a question looks.

    Attributes:
        lang: language of the words around it, en or zh.
        by_text: the answer is the text of a choice, and choices are not listed; else it is a letter.
        lead: stands between the question and an answer that is a text: a blank, or nothing.
        introduction: stands before the first message; None: the usual sentence.
    """

    lang: str = "en"
    by_text: bool = False
    lead: str = ""
    introduction: str | None = None

    def asks(self, question: Question) -> str:
        """Question, a line for each choice where letters answer, and the mark that the answer follows."""
        choices = [f"{letter}. {choice}" for letter, choice in zip(question.letters, question.choices, strict=True)]
        return "\n".join([question.text, *(() if self.by_text else choices), ANSWER_MARKS[self.lang]])

    def answers(self, question: Question, index: int) -> str:
        """What a choice is as an answer."""
        return self.lead + question.choices[index] if self.by_text else question.letters[index]

    def introduces(self, title: str) -> str:
        """The sentence before the questions."""
        return INTRODUCTIONS[self.lang].format(title=title) if self.introduction is None else self.introduction


def messages_of(title: str, examples: Sequence[Question], question: Question, style: Style) -> list[Message]:
    """The conversation that ends with the question; the introduction opens the first message."""
    messages: list[Message] = []
    for example in examples:
        messages.append(Message("user", style.asks(example)))
        messages.append(Message("assistant", style.answers(example, example.answer or 0)))
    messages.append(Message("user", style.asks(question)))
    first = messages[0]
    return [Message(first.role, style.introduces(title) + first.content), *messages[1:]]


def lead_of(form: ChatFormat) -> str:
    """A blank where a prompt's text ends in a letter or mark that an answer would run into; else nothing."""
    ids = form.prompt_ids([Message("user", ANSWER_MARKS["en"])])
    return " " if form.tokenizer.decode(ids).endswith(ANSWER_MARKS["en"]) else ""


@dataclass(frozen=True, slots=True)
class Prompt:
    """A question as the model reads it.

    Attributes:
        ids: tokens up to where the answer stands.
        n_examples: worked examples before it.
        answers: tokens of each choice, where texts are compared; empty where letters are.
    """

    ids: list[int]
    n_examples: int
    answers: tuple[tuple[int, ...], ...] = ()


def write_prompts(
    form: ChatFormat, subject: Subject, examples: Sequence[Question], style: Style, context: int | None
) -> list[Prompt]:
    """A prompt for each question; where one is longer than the context, it gets fewer examples.

    Raises:
        DataError: a question that does not fit even alone.
    """
    prompts = []
    for number, question in enumerate(subject.questions):
        answers = tuple(
            tuple(form.tokenizer.encode(style.answers(question, index), add_special_tokens=False))
            for index in range(len(question.choices) if style.by_text else 0)
        )
        longest = max(map(len, answers), default=1)
        for n_kept in range(len(examples), -1, -1):
            ids = form.prompt_ids(messages_of(subject.title, examples[:n_kept], question, style))
            if context is None or len(ids) + longest <= context:
                break
        else:
            what = f"the question has {len(ids)} tokens, the model's context holds {context}"
            raise DataError([Problem(what, f"{subject.name}, question {number}")])
        prompts.append(Prompt(ids, n_kept, answers))
    return prompts


def letter_tokens(form: ChatFormat, letters: str) -> tuple[int, ...]:
    """The last token of each letter, by which answers are read.

    Raises:
        ModelError: two letters end in the same token.
    """
    tokens = tuple(form.tokenizer.encode(letter, add_special_tokens=False)[-1] for letter in letters)
    if len(set(tokens)) < len(tokens):
        raise ModelError(f"this tokenizer writes some of the letters {letters} alike: choices cannot be told apart")
    return tokens
