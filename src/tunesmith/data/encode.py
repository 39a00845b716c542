"""Segments -> token ids and labels; all rows of a batch together, each text once.

Adjacent segments are one text for the tokenizer, as if it were called on the whole, unless a segment `breaks` or its
`trained` differs. Text that came from a row or a request never becomes a special token, nor any added token that the
template writes itself: a text with such a place in it is encoded by a private copy of the tokenizer (`guard.py`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

import numpy as np

from tunesmith.core.errors import TemplateError
from tunesmith.core.types import IGNORE_INDEX, Segment
from tunesmith.data.guard import Guard, guard_of
from tunesmith.data.words import words_for


class TokenFacts(Protocol):
    """What encoding must know about a template."""

    @property
    def name(self) -> str:
        """For messages."""
        ...

    @property
    def efficient_eos(self) -> bool:
        """Whether an empty trained segment stands for an eos label."""
        ...

    @property
    def token_names(self) -> frozenset[str]:
        """Tokens that are looked up by name."""
        ...

    @property
    def control_text(self) -> str:
        """All text that the template writes itself."""
        ...


class _Part(NamedTuple):
    """A stretch of a row: known ids, or the number of a text to encode (`guarded`: by the private copy).

    Without either it is the mark that the next label is eos.
    """

    trained: bool
    ids: tuple[int, ...] | None = None
    text: int | None = None
    guarded: bool = False


@dataclass(slots=True)
class _Plan:
    """What all rows share while they are planned; each distinct text is encoded once."""

    tokenizer: Any
    template: TokenFacts
    added: Mapping[str, int]
    guard: Guard
    plain: dict[str, int] = field(default_factory=dict)
    guarded: dict[str, int] = field(default_factory=dict)
    looked_up: dict[str, int] = field(default_factory=dict)


def encode(segments: Sequence[Segment], tokenizer: Any, template: TokenFacts) -> tuple[list[int], list[int]]:
    """Ids and labels of one row, each of length T; see `encode_batch`."""
    return encode_batch([segments], tokenizer, template)[0]


def encode_batch(
    rows: Sequence[Sequence[Segment]], tokenizer: Any, template: TokenFacts
) -> list[tuple[list[int], list[int]]]:
    """Ids and labels of each row, each of length T.

    An empty trained segment (see `render`) makes the label of the token after it eos.

    Raises:
        TemplateError: the template names a token that the tokenizer does not have.
    """
    guard = guard_of(tokenizer, template.control_text)
    plan = _Plan(tokenizer, template, tokenizer.get_added_vocab(), guard)
    parts = [[_part(run, plan) for run in _runs(row)] for row in rows]
    plain = _encode_texts(tokenizer, list(plan.plain))
    guarded = guard.encode(list(plan.guarded)) if plan.guarded else []
    return [_assemble(row, plain, guarded, tokenizer.eos_token_id) for row in parts]


def _runs(segments: Sequence[Segment]) -> list[list[Segment]]:
    """Segments grouped into what is one text for the tokenizer."""
    runs: list[list[Segment]] = []
    for segment in segments:
        last = runs[-1][0] if runs else None
        if last and last.text and segment.text and not segment.breaks and last.trained == segment.trained:
            runs[-1].append(segment)
        elif segment.text or segment.trained:
            runs.append([segment])
    return runs


def _part(run: list[Segment], plan: _Plan) -> _Part:
    first = run[0]
    if not first.text:
        return _Part(trained=plan.template.efficient_eos)
    if len(run) == 1 and first.literal:
        if first.text in plan.template.token_names:
            return _Part(first.trained, ids=(_token_id(first.text, plan),))
        if first.text in plan.added:
            return _Part(first.trained, ids=(plan.added[first.text],))
    if any(not segment.literal and plan.guard.occurs_in(segment.text) for segment in _joined(run)):
        text = "".join(
            plan.guard.rename(segment.text) if segment.literal else plan.guard.admit(segment.text) for segment in run
        )
        return _Part(first.trained, text=plan.guarded.setdefault(text, len(plan.guarded)), guarded=True)
    text = "".join(segment.text for segment in run) if len(run) > 1 else first.text
    return _Part(first.trained, text=plan.plain.setdefault(text, len(plan.plain)))


def _joined(run: list[Segment]) -> list[Segment]:
    """The run with neighbours that did not come from the template made one, so that no token hides across a cut."""
    joined: list[Segment] = []
    for segment in run:
        if joined and not segment.literal and not joined[-1].literal:
            joined[-1] = Segment(joined[-1].text + segment.text, literal=False)
        else:
            joined.append(segment)
    return joined


def _token_id(name: str, plan: _Plan) -> int:
    if name in plan.looked_up:
        return plan.looked_up[name]
    found = plan.tokenizer.convert_tokens_to_ids(name)
    if found is None or (found == plan.tokenizer.unk_token_id and name != plan.tokenizer.unk_token):
        raise TemplateError(
            f"template {plan.template.name!r} writes the token {name!r}, which this tokenizer does not have; "
            "it belongs to another model family"
        )
    return plan.looked_up.setdefault(name, int(found))


def _encode_texts(tokenizer: Any, texts: list[str]) -> list[list[int]]:
    """Ids of each text, special tokens read and none added."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if not texts:
        return []
    # Another call may have left padding or truncation on; the tokenizer's own call sets all of them anew.
    is_ready = backend is not None and not (backend.padding or backend.truncation or backend.encode_special_tokens)
    if is_ready:
        return [
            np.frombuffer(ids, dtype=np.int32).tolist() for ids in words_for(tokenizer, len(tokenizer)).encode(texts)
        ]
    answer = tokenizer(texts, add_special_tokens=False, split_special_tokens=False, return_attention_mask=False)
    ids: list[list[int]] = answer["input_ids"]
    return ids


def _assemble(
    parts: list[_Part], plain: list[list[int]], guarded: list[list[int]], eos: int | None
) -> tuple[list[int], list[int]]:
    input_ids: list[int] = []
    labels: list[int] = []
    ends_turn = False
    for part in parts:
        if part.ids is None and part.text is None:
            ends_turn = part.trained and eos is not None
            continue
        ids: Sequence[int] = part.ids or (guarded if part.guarded else plain)[part.text or 0]
        input_ids += ids
        labels += ids if part.trained else [IGNORE_INDEX] * len(ids)
        if ends_turn and ids and eos is not None:
            labels[-len(ids)] = eos
            ends_turn = False
    return input_ids, labels
