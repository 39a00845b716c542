"""Questions to messages: worked examples, then the question; the model's next token is its answer."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

from tunesmith.core.errors import DataError, ModelError, Problem
from tunesmith.core.types import Message
from tunesmith.evaluation.question import Question, Subject
from tunesmith.inference.chat import ChatFormat

INTRODUCTIONS = {
    "en": "Here are multiple-choice questions on {title}, each with its right answer.\n\n",
    "zh": "以下是关于{title}的单项选择题，每题附有正确答案。\n\n",
}
ANSWER_MARKS = {"en": "Answer:", "zh": "答案："}


def draw_examples(subject: Subject, n_shot: int, seed: int) -> list[Question]:
    """The worked examples of a subject: the same for all its questions, so that their part is computed once.

    Args:
        subject: whose examples.
        n_shot: how many; fewer where the subject has no more.
        seed: each subject draws by itself, so leaving one out changes no other.
    """
    known = [example for example in subject.examples if example.answer is not None]
    return random.Random(f"{seed} {subject.name}").sample(known, min(n_shot, len(known)))


def question_text(question: Question, lang: str) -> str:
    """Question, a line for each choice, and the mark that the answer follows."""
    choices = [f"{letter}. {choice}" for letter, choice in zip(question.letters, question.choices, strict=True)]
    return "\n".join([question.text, *choices, ANSWER_MARKS[lang]])


def messages_of(title: str, examples: Sequence[Question], question: Question, lang: str) -> list[Message]:
    """The conversation that ends with the question; the introduction opens the first message."""
    messages: list[Message] = []
    for example in examples:
        messages.append(Message("user", question_text(example, lang)))
        messages.append(Message("assistant", example.letters[example.answer or 0]))
    messages.append(Message("user", question_text(question, lang)))
    first = messages[0]
    return [Message(first.role, INTRODUCTIONS[lang].format(title=title) + first.content), *messages[1:]]


@dataclass(frozen=True, slots=True)
class Prompt:
    """A question as the model reads it.

    Attributes:
        ids: tokens up to where the answer stands.
        n_examples: worked examples before it.
    """

    ids: list[int]
    n_examples: int


def write_prompts(
    form: ChatFormat, subject: Subject, examples: Sequence[Question], lang: str, context: int | None
) -> list[Prompt]:
    """A prompt for each question; where one is longer than the context, it gets fewer examples.

    Raises:
        DataError: a question that does not fit even alone.
    """
    prompts = []
    for number, question in enumerate(subject.questions):
        for n_kept in range(len(examples), -1, -1):
            ids = form.prompt_ids(messages_of(subject.title, examples[:n_kept], question, lang))
            if context is None or len(ids) < context:
                break
        else:
            what = f"the question has {len(ids)} tokens, the model's context holds {context}"
            raise DataError([Problem(what, f"{subject.name}, question {number}")])
        prompts.append(Prompt(ids, n_kept))
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
