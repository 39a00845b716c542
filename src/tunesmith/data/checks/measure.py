"""Lengths of examples of other kinds than conversations: pairs, judged answers, prompts, texts. Makes no labels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from tunesmith.core.errors import TemplateError
from tunesmith.core.types import IGNORE_INDEX, Conversation, Example, Feedback, Preference, Segment, Source, Text
from tunesmith.data.render import render_prompt
from tunesmith.data.report import DatasetReport, Reject, unwritable
from tunesmith.data.tokenize import Encoder


@dataclass(frozen=True, slots=True)
class Measured:
    """One example with its lengths in tokens.

    Attributes:
        example: the row.
        tokens: of its longest sequence, prompt and answer together.
        answers: of each answer, end of turn included; 0 where the row holds none.
    """

    example: Example
    tokens: int
    answers: tuple[int, ...] = ()

    @property
    def source(self) -> Source:
        """Where the row comes from."""
        return self.example.source or Source("", 0)


def measure(examples: Sequence[Example], encoder: Encoder, report: DatasetReport) -> list[Measured]:
    """Lengths of a batch; every row is booked as kept, or as rejected where it cannot be written.

    Args:
        examples: rows of any kind.
        encoder: tokenizer, template, settings.
        report: takes the rows; what is longer than `cutoff_len` counts as truncated, but for plain text, which is laid
            out in blocks.
    """
    last_only = replace(encoder, settings=replace(encoder.settings, mask_history=True, train_on_prompt=False))
    writable, rendered = [], []
    for example in examples:
        try:
            segments = [_segments(part, last_only) for part in _sequences(example)]
        except TemplateError as error:
            report.reject(_unwritable(example, error))
            continue
        writable.append(example)
        rendered.append(segments)
    encoded = iter(last_only.encode([part for parts in rendered for part in parts]))
    found = []
    for example, parts in zip(writable, rendered, strict=True):
        lengths = [(len(ids), _labelled(labels)) for ids, labels in (next(encoded) for _ in parts)]
        extra = int(isinstance(example, Text))  # the end token behind a text
        answers = tuple(answer + extra for _, answer in lengths)
        found.append(Measured(example, max(tokens for tokens, _ in lengths) + extra, answers))
        _book(found[-1], sum(tokens + extra for tokens, _ in lengths), encoder.cutoff_len, report)
    return found


def _book(row: Measured, tokens: int, cutoff_len: int, report: DatasetReport) -> None:
    report.kept += 1
    report.tokens += tokens
    report.trained_tokens += sum(row.answers)
    report.longest = max(report.longest, row.tokens)
    report.truncated += row.tokens > cutoff_len and not isinstance(row.example, Text)


def _labelled(labels: list[int]) -> int:
    return sum(label != IGNORE_INDEX for label in labels)


def _sequences(example: Example) -> list[Conversation | Text]:
    """What the model would read of a row, one after the other."""
    if isinstance(example, Preference):
        prompt = example.prompt
        return [
            replace(prompt, messages=(*prompt.messages, replace(answer, trained=None)))
            for answer in (example.chosen, example.rejected)
        ]
    return [example.conversation if isinstance(example, Feedback) else example]


def _segments(part: Conversation | Text, encoder: Encoder) -> list[Segment]:
    if isinstance(part, Text):
        return [Segment(part.text, trained=True, literal=False)]
    if part.messages[-1].role != "assistant":
        return render_prompt(encoder.template, part, encoder.settings, encoder.names)
    return encoder.segments(part)


def _unwritable(example: Example, error: TemplateError) -> Reject:
    return unwritable(Conversation((), source=example.source), error)
