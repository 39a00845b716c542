"""Conversations -> prompts to answer and the answers that they hold, for prediction. Reads no files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from tunesmith.core.types import Conversation, Message, Segment, Source
from tunesmith.data.render import render_prompt, render_turn
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
    """

    input_ids: list[int]
    prompt_text: str
    label_text: str
    source: Source | None = None
    lost_tokens: int = 0


def encode_prompts(encoder: Encoder, conversations: Sequence[Conversation], ends: frozenset[int]) -> list[PromptRow]:
    """Prompts of at most `cutoff_len` tokens; the answer is never cut and never shortens the prompt.

    Args:
        encoder: tokenizer, template, settings.
        conversations: rows; where the last message is the assistant's it is the label.
        ends: tokens that end an answer.
    """
    parted = [_part(conversation) for conversation in conversations]
    rendered = [render_prompt(encoder.template, prompt, encoder.settings, encoder.names) for prompt, _ in parted]
    labels = _label_texts(encoder, conversations, [answer for _, answer in parted], ends)
    rows = []
    for (prompt, _), segments, (ids, _), label in zip(parted, rendered, encoder.encode(rendered), labels, strict=True):
        whole = len(ids)
        if whole > encoder.cutoff_len:
            (ids, _), _ = cut_prompt(encoder, segments, prompt.messages[-1].content, encoder.cutoff_len)
        rows.append(PromptRow(ids, encoder.tokenizer.decode(ids), label, prompt.source, whole - len(ids)))
    return rows


def _part(conversation: Conversation) -> tuple[Conversation, Message | None]:
    *before, last = conversation.messages
    if last.role != "assistant":
        return conversation, None
    return replace(conversation, messages=tuple(before)), last


def _label_texts(
    encoder: Encoder, conversations: Sequence[Conversation], answers: Sequence[Message | None], ends: frozenset[int]
) -> list[str]:
    """Answers as the model would write them: calls in the template's words, without end tokens."""
    if not isinstance(encoder.template, Template):
        return [answer.content if answer else "" for answer in answers]
    segments: list[list[Segment]] = [
        render_turn(encoder.template, conversation, encoder.settings, encoder.names)[1] if answer else []
        for conversation, answer in zip(conversations, answers, strict=True)
    ]
    return [
        encoder.tokenizer.decode(_until(ids, ends), skip_special_tokens=True) for ids, _ in encoder.encode(segments)
    ]


def _until(ids: list[int], ends: frozenset[int]) -> list[int]:
    return ids[: next((place for place, token in enumerate(ids) if token in ends), len(ids))]
