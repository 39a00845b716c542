"""Pairs of answers (rm, dpo) and judged answers (kto) -> token ids and labels within cutoff_len.

Only the answers are trained. A prompt is written as in a chat: up to where the model answers, earlier thoughts cut.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from tunesmith.core.errors import TemplateError
from tunesmith.core.types import Conversation, Feedback, Message, Preference, Segment, TokenizedRow
from tunesmith.data.budget import share_budget
from tunesmith.data.render import Turn, render_turn
from tunesmith.data.report import DatasetReport, unwritable
from tunesmith.data.template import Template
from tunesmith.data.tokenize import Encoder, cut_prompt, split_turns

_Encoded = tuple[list[int], list[int]]


def tokenize_pairs(pairs: Sequence[Preference], encoder: Encoder, report: DatasetReport) -> list[TokenizedRow]:
    """Each pair as one row: prompt and chosen answer, then prompt and rejected answer.

    Both answers are cut to the same length, which the longer one decides, so that the cut tells nothing of which is
    better.

    Args:
        pairs: rows.
        encoder: tokenizer, template, settings.
        report: takes the rows that the template cannot write.
    """
    return _tokenize(pairs, encoder, report)


def tokenize_feedback(rows: Sequence[Feedback], encoder: Encoder, report: DatasetReport) -> list[TokenizedRow]:
    """Each judged answer as one row of one sequence; arguments as in `tokenize_pairs`."""
    return _tokenize(rows, encoder, report)


def tokenize_judged(example: Preference | Feedback, encoder: Encoder) -> TokenizedRow:
    """One row alone.

    Raises:
        TemplateError: the template cannot write it.
    """
    return _finish(encoder, *_write(encoder, [example])[0])


_Written = tuple[Preference | Feedback, list[Turn], list[tuple[_Encoded, _Encoded]]]


def _tokenize(examples: Sequence[Preference | Feedback], encoder: Encoder, report: DatasetReport) -> list[TokenizedRow]:
    return [_finish(encoder, *written) for written in _write(encoder, examples, report)]


def _write(
    encoder: Encoder, examples: Sequence[Preference | Feedback], report: DatasetReport | None = None
) -> list[_Written]:
    """Rendered and encoded; without a report the first row that cannot be written is raised."""
    rendered: list[tuple[Preference | Feedback, list[Turn]]] = []
    for example in examples:
        try:
            rendered.append((example, [last_turn(encoder, one) for one in conversations_of(example)]))
        except TemplateError as error:
            if report is None:
                raise
            report.reject(unwritable(Conversation((), source=example.source), error))
    encoded = iter(encoder.encode([part for _, turns in rendered for turn in turns for part in _parts(turn)]))
    return [(example, turns, [(next(encoded), next(encoded)) for _ in turns]) for example, turns in rendered]


def _finish(
    encoder: Encoder, example: Preference | Feedback, turns: list[Turn], sequences: list[tuple[_Encoded, _Encoded]]
) -> TokenizedRow:
    first = conversations_of(example)[0]
    row = _lay(encoder, turns, sequences, first.messages[-2].content if len(first.messages) > 1 else "")
    verdict = example.is_desirable if isinstance(example, Feedback) else True
    return replace(row, source=example.source, weight=first.weight, is_desirable=verdict)


def conversations_of(example: Preference | Feedback) -> list[Conversation]:
    """What the model reads of a row, prompt and answer: two of a pair, one of a judged answer."""
    if isinstance(example, Feedback):
        return [example.conversation]
    prompt = example.prompt
    return [replace(prompt, messages=(*prompt.messages, answer)) for answer in (example.chosen, example.rejected)]


def _parts(turn: Turn) -> tuple[Sequence[Segment], Sequence[Segment]]:
    return turn.prompt, turn.answer


def last_turn(encoder: Encoder, conversation: Conversation) -> Turn:
    """The last answer, trained, and everything before it, not trained; flags of single messages are not asked.

    Raises:
        TemplateError: the template cannot write it.
    """
    bare = replace(conversation, messages=tuple(_bare(message) for message in conversation.messages))
    if isinstance(encoder.template, Template):
        prompt, answer = render_turn(encoder.template, bare, encoder.settings, encoder.names)
        return Turn(tuple(prompt), tuple(answer))
    only_last = replace(encoder.settings, mask_history=True, train_on_prompt=False)
    *before, last = split_turns(replace(encoder, settings=only_last), bare)
    prompt = [part for turn in before for part in (*turn.prompt, *turn.answer)]
    return Turn((*prompt, *last.prompt), last.answer)


def _bare(message: Message) -> Message:
    return message if message.trained is None else replace(message, trained=None)


def _lay(
    encoder: Encoder, turns: Sequence[Turn], sequences: Sequence[tuple[_Encoded, _Encoded]], asked: str
) -> TokenizedRow:
    """The sequences of one row, laid one behind the other, each within cutoff_len."""
    source = max(len(prompt[0]) for prompt, _ in sequences)
    target = max(len(answer[0]) for _, answer in sequences)
    keep_source, keep_target = source, target
    if source + target > encoder.cutoff_len:
        keep_source, keep_target = share_budget(source, target, encoder.cutoff_len)
    ids: list[int] = []
    labels: list[int] = []
    starts: list[int] = []
    lost, lost_trained = 0, 0
    extra: dict[str, bool] = {}
    for turn, (prompt, answer) in zip(turns, sequences, strict=True):
        starts.append(len(ids))
        kept = prompt
        if len(prompt[0]) > keep_source:
            cut = cut_prompt(encoder, turn.prompt, asked, keep_source)
            kept, extra = (cut.ids, cut.labels), extra | cut.marks
        lost_trained += max(len(answer[0]) - keep_target, 0)
        lost += len(prompt[0]) - len(kept[0]) + max(len(answer[0]) - keep_target, 0)
        ids += kept[0] + answer[0][:keep_target]
        labels += kept[1] + answer[1][:keep_target]
    second = starts[1] if len(starts) > 1 else 0
    return TokenizedRow(ids, labels, None, lost, lost_trained, extra, second=second)
