"""Conversations -> prompts to answer and the answers that they hold: for prediction and for reinforcement learning."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from tunesmith.core.errors import TemplateError
from tunesmith.core.types import IGNORE_INDEX, Conversation, Message, Segment, Source, TokenizedRow
from tunesmith.data.render import render_prompt, render_turn
from tunesmith.data.report import DatasetReport, unwritable
from tunesmith.data.rows import TrainItem
from tunesmith.data.template import Template
from tunesmith.data.tokenize import Encoder, cut_prompt


@dataclass(frozen=True, slots=True)
class PromptRow:
    """One row to predict.

    Attributes:
        input_ids: the prompt up to where the model answers.
        prompt_text: the same, decoded with special tokens.
        label_text: the answer that the row holds, without end tokens; empty where it holds none.
        source: where the row comes from.
        lost_tokens: tokens that the prompt lost to `cutoff_len`.
        asked: content of the last message of the prompt.
        other_labels: further answers that are as good.
    """

    input_ids: list[int]
    prompt_text: str
    label_text: str
    source: Source | None = None
    lost_tokens: int = 0
    asked: str = ""
    other_labels: tuple[str, ...] = ()


class PromptRows(Sequence[TrainItem]):
    """Prompts as items for the trainer: nothing of them is trained, answers are made of them in each step.

    Attributes:
        prompts: the rows.
        longest: tokens of the longest prompt and of the longest answer that may follow.
    """

    def __init__(self, prompts: Sequence[PromptRow], answer_tokens: int) -> None:
        self.prompts = prompts
        self.longest = max(len(prompt.input_ids) for prompt in prompts) + answer_tokens

    def __len__(self) -> int:
        return len(self.prompts)

    def __getitem__(self, index: Any) -> Any:
        place = range(len(self))[index]
        ids = self.prompts[place].input_ids
        item: TrainItem = {
            "input_ids": ids,
            "labels": [IGNORE_INDEX] * len(ids),
            "lengths": [len(ids)],
            "rows": [place],
        }
        return item

    def source(self, index: int) -> Source:
        """File and row number of one prompt."""
        return self.prompts[index].source or Source("", index + 1)

    def digest(self) -> str:
        """Identity of the prompts in their order, 64 hex digits."""
        whole = hashlib.sha256()
        for prompt in self.prompts:
            whole.update(repr((prompt.input_ids, prompt.label_text)).encode())
        return whole.hexdigest()


def prompt_of(row: TokenizedRow, tokenizer: Any, ends: frozenset[int]) -> PromptRow | None:
    """The last answer of a tokenized row and the prompt before it: what a model would be asked, and should say.

    Args:
        row: answers carry loss, prompts do not.
        tokenizer: decodes.
        ends: tokens that end an answer.

    Returns:
        None where no token stands before the answer, or nothing carries loss.
    """
    trained = [place for place, label in enumerate(row.labels) if label != IGNORE_INDEX]
    if not trained:
        return None
    last = begin = trained[-1]
    while begin > 0 and row.labels[begin - 1] != IGNORE_INDEX:
        begin -= 1
    if begin == 0:
        return None
    ids = list(row.input_ids[:begin])
    label = tokenizer.decode(_until(list(row.labels[begin : last + 1]), ends), skip_special_tokens=True)
    return PromptRow(ids, tokenizer.decode(ids), label, row.source, row.lost_tokens)


def encode_prompts(
    encoder: Encoder, conversations: Sequence[Conversation], ends: frozenset[int], report: DatasetReport
) -> list[PromptRow]:
    """Prompts of at most `cutoff_len` tokens; the answer is never cut and never shortens the prompt.

    Args:
        encoder: tokenizer, template, settings.
        conversations: rows; where the last message is the assistant's it is the label.
        ends: tokens that end an answer.
        report: books every row as kept, or as rejected where the template cannot write it.
    """
    asked: list[_Asked] = []
    for conversation in conversations:
        try:
            asked.append(_ask(encoder, conversation))
        except TemplateError as error:
            report.reject(unwritable(conversation, error))
    questions = encoder.encode([one.question for one in asked])
    answers = encoder.encode([one.answer for one in asked])
    rows = []
    for one, (ids, _), (label_ids, _) in zip(asked, questions, answers, strict=True):
        label = one.text
        if label is None:
            label = encoder.tokenizer.decode(_until(label_ids, ends), skip_special_tokens=True)
        kept = ids
        if len(ids) > encoder.cutoff_len:
            cut = cut_prompt(encoder, one.question, one.prompt.messages[-1].content, encoder.cutoff_len)
            kept = cut.ids
            report.note_cut(one.prompt.source or Source("", 0), not cut.has_header, not cut.has_question)
        text = encoder.tokenizer.decode(kept)
        asked_last = one.prompt.messages[-1].content
        rows.append(PromptRow(kept, text, label, one.prompt.source, len(ids) - len(kept), asked_last))
    report.kept += len(rows)
    report.truncated += sum(row.lost_tokens > 0 for row in rows)
    return rows


@dataclass(frozen=True, slots=True)
class _Asked:
    """A row in segments.

    Attributes:
        prompt: the messages before the answer.
        question: the prompt, rendered.
        answer: the answer, rendered, calls in the template's words.
        text: the answer's text where it needs no rendering; `auto` templates do not render an answer alone.
    """

    prompt: Conversation
    question: list[Segment]
    answer: list[Segment]
    text: str | None


def _ask(encoder: Encoder, conversation: Conversation) -> _Asked:
    prompt, answer = _part(conversation)
    question = render_prompt(encoder.template, prompt, encoder.settings, encoder.names)
    if answer is None or not isinstance(encoder.template, Template):
        return _Asked(prompt, question, [], answer.content if answer else "")
    rendered = render_turn(encoder.template, conversation, encoder.settings, encoder.names)[1]
    return _Asked(prompt, question, rendered, None)


def _part(conversation: Conversation) -> tuple[Conversation, Message | None]:
    *before, last = conversation.messages
    if last.role != "assistant":
        return conversation, None
    return replace(conversation, messages=tuple(before)), last


def _until(ids: list[int], ends: frozenset[int]) -> list[int]:
    return ids[: next((place for place, token in enumerate(ids) if token in ends), len(ids))]
