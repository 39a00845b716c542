"""Conversations -> token ids and labels within cutoff_len. Whole rows in batches, long ones turn by turn."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any

import numpy as np

from tunesmith.core.types import IGNORE_INDEX, Conversation, Segment, TokenizedRow
from tunesmith.data.auto_template import AutoTemplate
from tunesmith.data.budget import share_turns
from tunesmith.data.encode import encode_batch, encode_flat
from tunesmith.data.flat import pack_flat
from tunesmith.data.frames import Filled, Frames
from tunesmith.data.render import Turn, render, render_turns
from tunesmith.data.rows import TokenizedRows
from tunesmith.data.settings import RenderSettings, TokenNames, token_names
from tunesmith.data.template import Template

LOST_HEADER, LOST_QUESTION = "lost_header", "lost_question"
_Encoded = tuple[list[int], list[int]]


@dataclass(frozen=True, slots=True)
class CutPrompt:
    """What is left of a prompt.

    Attributes:
        ids: token ids.
        labels: of the same length.
        has_header: the template's text that ends it is there as a whole.
        has_question: something of the last message is there, or there was nothing in it.
    """

    ids: list[int]
    labels: list[int]
    has_header: bool
    has_question: bool

    @property
    def marks(self) -> dict[str, bool]:
        """What `TokenizedRow.extra` says of it."""
        lost = {LOST_HEADER: not self.has_header, LOST_QUESTION: not self.has_question}
        return {name: True for name, is_lost in lost.items() if is_lost}


@dataclass(frozen=True, slots=True)
class Encoder:
    """Everything that stays the same while a data set is tokenized.

    Attributes:
        tokenizer: of transformers.
        template: how conversations are written.
        settings: choices of the run.
        cutoff_len: tokens of the longest row.
        names: of bos and eos.
        frames: what the template writes around plain texts; None for templates of tokenizers.
    """

    tokenizer: Any
    template: Template | AutoTemplate
    settings: RenderSettings
    cutoff_len: int
    names: TokenNames = field(init=False)
    frames: Frames | None = field(init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        names = token_names(self.tokenizer, self.template)
        frames = Frames(self.template, self.settings, names) if isinstance(self.template, Template) else None
        object.__setattr__(self, "names", names)
        object.__setattr__(self, "frames", frames)

    def segments(self, conversation: Conversation) -> list[Segment]:
        """The whole conversation, rendered.

        Raises:
            TemplateError: the template cannot write it.
        """
        return render(self.template, conversation, self.settings, self.names)

    def encode(self, segment_lists: Sequence[Sequence[Segment]]) -> list[_Encoded]:
        """Ids and labels of rendered texts."""
        return encode_batch(segment_lists, self.tokenizer, self.template)


def tokenize(
    encoder: Encoder, conversations: Sequence[Conversation], rendered: Sequence[Sequence[Segment] | Filled]
) -> list[TokenizedRow]:
    """`tokenize_block` as row objects."""
    rows, extras = tokenize_block(encoder, conversations, rendered)
    return [replace(row, extra=extras.get(index, {})) for index, row in enumerate(rows)]


def tokenize_block(
    encoder: Encoder, conversations: Sequence[Conversation], rendered: Sequence[Sequence[Segment] | Filled]
) -> tuple[TokenizedRows, dict[int, dict[str, Any]]]:
    """A batch of conversations as rows of at most `cutoff_len` tokens, and `extra` of those that were cut, by number.

    Args:
        encoder: tokenizer, template, settings.
        conversations: the rows.
        rendered: `encoder.segments` of each, or the same in its frame.
    """
    flat = encode_flat(rendered, encoder.tokenizer, encoder.template)
    extras: dict[int, dict[str, Any]] = {}
    cut: dict[int, TokenizedRow] = {}
    for index in np.flatnonzero(flat.lengths > encoder.cutoff_len).tolist():
        ids, labels = flat.row(index)
        conversation = conversations[index]
        whole = TokenizedRow(ids.tolist(), labels.tolist(), conversation.source, weight=conversation.weight)
        cut[index] = cut_row(encoder, conversation, whole)
        if cut[index].extra:
            extras[index] = cut[index].extra
    sources = [conversation.source for conversation in conversations]
    weights = [conversation.weight for conversation in conversations]
    return pack_flat(flat, sources, weights, cut), extras


def cut_row(encoder: Encoder, conversation: Conversation, whole: TokenizedRow) -> TokenizedRow:
    """A row that is too long, cut turn by turn.

    A cut prompt loses the end of what the user wrote, never the template's text after it, so that the answer still
    follows the assistant's header; a cut answer loses its end.
    """
    turns = split_turns(encoder, conversation)
    efficient = isinstance(encoder.template, Template) and encoder.template.efficient_eos
    eos = encoder.tokenizer.eos_token_id
    bare = [_without_eos(turn, is_last=turn is turns[-1]) if efficient else turn for turn in turns]
    prompts = encoder.encode([turn.prompt for turn in bare])
    answers = encoder.encode([turn.answer for turn in bare])
    sizes = [(len(prompt[0]), len(answer[0])) for prompt, answer in zip(prompts, answers, strict=True)]
    kept = share_turns(sizes, encoder.cutoff_len, int(efficient), encoder.settings.mask_history)
    ids: list[int] = []
    labels: list[int] = []
    extra: dict[str, bool] = {}
    owes_eos = False
    asked = _asked_texts(conversation, len(bare))
    for index, (turn, (keep_source, keep_target)) in enumerate(zip(bare, kept, strict=True)):
        prompt, answer = prompts[index], answers[index]
        if not keep_source and not keep_target:
            continue
        if keep_source < len(prompt[0]):
            cut = cut_prompt(encoder, turn.prompt, asked[index], keep_source)
            prompt = (cut.ids, cut.labels)
            extra |= cut.marks
        start = len(ids)
        ids += prompt[0] + answer[0][:keep_target]
        labels += prompt[1] + answer[1][:keep_target]
        if owes_eos and start < len(labels):
            labels[start] = eos
        owes_eos = efficient and keep_target == len(answer[0]) and any(part.trained for part in turn.answer)
    if owes_eos:
        ids.append(eos)
        labels.append(eos)
    row = TokenizedRow(ids, labels, conversation.source, weight=conversation.weight)
    return replace(
        row,
        lost_tokens=len(whole.input_ids) - len(ids),
        lost_trained_tokens=max(whole.n_trained - row.n_trained, 0),
        extra=extra,
    )


def _without_eos(turn: Turn, is_last: bool) -> Turn:
    """Takes off what `efficient_eos` adds behind an answer: the final eos, or the mark of an eos label."""
    answer = turn.answer
    if answer and (is_last or not answer[-1].text):
        answer = answer[:-1]
    return Turn(turn.prompt, answer)


def cut_prompt(encoder: Encoder, prompt: Sequence[Segment], asked: str, keep: int) -> CutPrompt:
    """The first tokens of a prompt and all of the template's text that ends it.

    Args:
        encoder: tokenizer and template.
        prompt: rendered, up to where the answer begins.
        asked: content of its last message; `auto` templates do not say where their own text begins.
        keep: tokens there is room for.
    """
    text = "".join(part.text for part in prompt)
    content = asked.strip()
    start = text.rfind(content) if content else -1
    if isinstance(encoder.template, Template):
        cut = len(prompt)
        while cut and prompt[cut - 1].literal:
            cut -= 1
        parts = [prompt[:cut], prompt[cut:]]
    else:
        place = start + len(content) if start >= 0 else len(text)
        parts = [_between(prompt, 0, place), _between(prompt, place, len(text))]
    (head, head_labels), (tail, tail_labels), (before, _) = encoder.encode([*parts, _between(prompt, 0, max(start, 0))])
    if len(tail) > keep:
        rest = len(tail) - keep
        return CutPrompt(tail[rest:], tail_labels[rest:], has_header=False, has_question=not content)
    room = keep - len(tail)
    has_question = start < 0 or room > len(before)
    return CutPrompt(head[:room] + tail, head_labels[:room] + tail_labels, True, has_question)


def _asked_texts(conversation: Conversation, count: int) -> list[str]:
    """What was said last before each answer; padded where the template sees another number of turns."""
    messages = conversation.messages
    found = [before.content for before, message in pairwise(messages) if message.role == "assistant"]
    return (found + [""] * count)[:count]


def split_turns(encoder: Encoder, conversation: Conversation) -> list[Turn]:
    """Prompt and answer of each turn, with the flags of the run."""
    if isinstance(encoder.template, Template):
        return render_turns(encoder.template, conversation, encoder.settings, encoder.names)
    segments = encoder.segments(conversation)
    plain = replace(conversation, messages=tuple(replace(message, trained=None) for message in conversation.messages))
    unmasked = replace(encoder.settings, mask_history=False, train_on_prompt=False)
    marked = render(encoder.template, plain, unmasked, encoder.names)
    return _regroup(segments, marked)


def _regroup(segments: list[Segment], marked: list[Segment]) -> list[Turn]:
    """Parts `segments` into turns where `marked`, the same text with every answer trained, changes sides.

    Where the two texts differ (a template that rewrites history under other settings) the row is one turn that ends in
    its last trained run.
    """
    if "".join(part.text for part in segments) != "".join(part.text for part in marked):
        marked = segments
    borders = _answer_borders(marked)
    turns: list[Turn] = []
    position = 0
    for start, stop in borders:
        turns.append(Turn(_between(segments, position, start), _between(segments, start, stop)))
        position = stop
    rest = _between(segments, position, sum(len(part.text) for part in segments))
    if rest and turns:
        turns[-1] = Turn(turns[-1].prompt, turns[-1].answer + rest)
    return turns or [Turn(tuple(segments), ())]


def _answer_borders(segments: list[Segment]) -> list[tuple[int, int]]:
    """(first, last + 1) character of every trained run."""
    borders: list[tuple[int, int]] = []
    position = 0
    for part in segments:
        end = position + len(part.text)
        if part.trained and part.text:
            if borders and borders[-1][1] == position:
                borders[-1] = (borders[-1][0], end)
            else:
                borders.append((position, end))
        position = end
    return borders


def _between(segments: Sequence[Segment], start: int, stop: int) -> tuple[Segment, ...]:
    """The segments between two characters; one that crosses a border is cut there."""
    found = []
    position = 0
    for part in segments:
        first, last = max(start - position, 0), min(stop - position, len(part.text))
        if first < last:
            found.append(replace(part, text=part.text[first:last]))
        position += len(part.text)
    return tuple(found)


def is_trained(row: TokenizedRow) -> bool:
    """Whether each sequence of the row teaches anything."""
    return all(any(label != IGNORE_INDEX for label in labels[1:]) for _, labels in row.sequences())
