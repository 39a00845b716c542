"""Segments -> token ids and labels; all rows of a batch together, each text once.

Adjacent segments are one text for the tokenizer, as if it were called on the whole, unless a segment `breaks` or its
`trained` differs. Text that came from a row or a request never becomes a special token, nor any added token that the
template writes itself: a text with such a place in it is encoded by a private copy of the tokenizer (`guard.py`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, NamedTuple, Protocol

import numpy as np

from tunesmith.core.errors import TemplateError
from tunesmith.core.types import IGNORE_INDEX, Segment
from tunesmith.data.flat import FlatTokens
from tunesmith.data.frames import Filled, Frame
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


class _FrameRun(NamedTuple):
    """What is one text in every row of a frame.

    Attributes:
        trained: whether its tokens are labels.
        texts: of the template, around the contents.
        places: which contents.
        is_simple: contents stand apart, so that no guarded name can lie across two of them.
        part: the same in each row; None where there are contents.
    """

    trained: bool
    texts: tuple[str, ...] = ()
    places: tuple[int, ...] = ()
    is_simple: bool = False
    part: _Part | None = None


@dataclass(slots=True)
class _Plan:
    """What all rows share while they are planned; each distinct text is encoded once."""

    tokenizer: Any
    template: TokenFacts
    names: frozenset[str]
    added: Mapping[str, int]
    guard: Guard
    plain: dict[str, int] = field(default_factory=dict)
    guarded: dict[str, int] = field(default_factory=dict)
    looked_up: dict[str, int] = field(default_factory=dict)
    runs: dict[int, list[_FrameRun]] = field(default_factory=dict)


def encode(segments: Sequence[Segment], tokenizer: Any, template: TokenFacts) -> tuple[list[int], list[int]]:
    """Ids and labels of one row, each of length T; see `encode_flat`."""
    return encode_batch([segments], tokenizer, template)[0]


def encode_batch(
    rows: Sequence[Sequence[Segment]], tokenizer: Any, template: TokenFacts
) -> list[tuple[list[int], list[int]]]:
    """Ids and labels of each row, each of length T; see `encode_flat`."""
    flat = encode_flat(rows, tokenizer, template)
    ids, labels, stops = flat.ids.tolist(), flat.labels.tolist(), np.cumsum(flat.lengths).tolist()
    return [(ids[start:stop], labels[start:stop]) for start, stop in pairwise([0, *stops])]


def encode_flat(rows: Sequence[Sequence[Segment] | Filled], tokenizer: Any, template: TokenFacts) -> FlatTokens:
    """Ids and labels of all rows.

    An empty trained segment (see `render`) makes the label of the token after it eos.

    Raises:
        TemplateError: the template names a token that the tokenizer does not have.
    """
    guard = guard_of(tokenizer, template.control_text)
    plan = _Plan(tokenizer, template, template.token_names, tokenizer.get_added_vocab(), guard)
    parts = [_parts_of(row, plan) for row in rows]
    plain = _encode_texts(tokenizer, list(plan.plain))
    guarded = [_as_bytes(ids) for ids in guard.encode(list(plan.guarded))] if plan.guarded else []
    return _lay(parts, plain, guarded, tokenizer.eos_token_id)


def _parts_of(row: Sequence[Segment] | Filled, plan: _Plan) -> list[_Part]:
    if not isinstance(row, Filled):
        return [_part(run, plan) for run in _runs(row)]
    runs = plan.runs.get(id(row.frame))
    if runs is None:
        runs = plan.runs[id(row.frame)] = _frame_runs(row.frame, plan)
    contents, parts = row.contents, []
    for run in runs:
        if run.part is not None:
            parts.append(run.part)
            continue
        texts = [contents[place] for place in run.places]
        if not run.is_simple or any(plan.guard.occurs_in(text) for text in texts):
            return [_part(one, plan) for one in _runs(row.segments())]
        text = run.texts[0] + "".join([one + after for one, after in zip(texts, run.texts[1:], strict=True)])
        parts.append(_Part(run.trained, text=plan.plain.setdefault(text, len(plan.plain))))
    return parts


def _frame_runs(frame: Frame, plan: _Plan) -> list[_FrameRun]:
    """What is one text for the tokenizer, however a frame is filled."""
    place_of = {id(part): place for part, place in zip(frame.segments, frame.places, strict=True) if place is not None}
    found = []
    for run in _runs(frame.segments):
        places = [place_of[id(part)] for part in run if id(part) in place_of]
        if not places:
            found.append(_FrameRun(run[0].trained, part=_part(run, plan)))
            continue
        texts = [""]
        for part in run:
            if id(part) in place_of:
                texts.append("")
            else:
                texts[-1] += part.text
        is_simple = all(texts[1:-1]) and all(part.literal for part in run if id(part) not in place_of)
        found.append(_FrameRun(run[0].trained, tuple(texts), tuple(places), is_simple))
    return found


def _runs(segments: Sequence[Segment]) -> list[list[Segment]]:
    """Segments grouped into what is one text for the tokenizer."""
    runs: list[list[Segment]] = []
    last: Segment | None = None
    for segment in segments:
        if segment.text:
            if last is not None and last.text and not segment.breaks and last.trained == segment.trained:
                runs[-1].append(segment)
                continue
        elif not segment.trained:
            continue
        last = segment
        runs.append([segment])
    return runs


def _part(run: list[Segment], plan: _Plan) -> _Part:
    first = run[0]
    if not first.text:
        return _Part(trained=plan.template.efficient_eos)
    if len(run) == 1 and first.literal:
        if first.text in plan.names:
            return _Part(first.trained, ids=(_token_id(first.text, plan),))
        if first.text in plan.added:
            return _Part(first.trained, ids=(plan.added[first.text],))
    if _holds_guarded(run, plan.guard):
        text = "".join(
            plan.guard.rename(segment.text) if segment.literal else plan.guard.admit(segment.text) for segment in run
        )
        return _Part(first.trained, text=plan.guarded.setdefault(text, len(plan.guarded)), guarded=True)
    text = "".join([segment.text for segment in run]) if len(run) > 1 else first.text
    return _Part(first.trained, text=plan.plain.setdefault(text, len(plan.plain)))


def _holds_guarded(run: list[Segment], guard: Guard) -> bool:
    """Whether text that is not the template's holds a guarded name, be it across a cut between two segments."""
    before = ""
    for segment in run:
        if segment.literal:
            before = ""
            continue
        before = before + segment.text if before else segment.text
        if guard.occurs_in(before):
            return True
    return False


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


def _encode_texts(tokenizer: Any, texts: list[str]) -> list[bytes]:
    """Ids of each text as int32, special tokens read and none added."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if not texts:
        return []
    # Another call may have left padding or truncation on; the tokenizer's own call sets all of them anew.
    is_ready = backend is not None and not (backend.padding or backend.truncation or backend.encode_special_tokens)
    if is_ready:
        return words_for(tokenizer, len(tokenizer)).encode(texts)
    answer = tokenizer(texts, add_special_tokens=False, split_special_tokens=False, return_attention_mask=False)
    return [_as_bytes(ids) for ids in answer["input_ids"]]


def _as_bytes(ids: Sequence[int]) -> bytes:
    return bytes(np.array(ids, dtype=np.int32).tobytes())


def _lay(rows: list[list[_Part]], plain: list[bytes], guarded: list[bytes], eos: int | None) -> FlatTokens:
    """Everything end to end; a label is the id there where the part is trained."""
    chunks: list[bytes] = []
    trained: list[bool] = []
    stops: list[int] = []
    ends: list[int] = []
    position = 0
    for row in rows:
        ends_turn = False
        for part in row:
            if part.ids is None and part.text is None:
                ends_turn = part.trained and eos is not None
                continue
            chunk = (
                (guarded if part.guarded else plain)[part.text] if part.text is not None else _as_bytes(part.ids or ())
            )
            if ends_turn and chunk:
                ends.append(position)
                ends_turn = False
            chunks.append(chunk)
            trained.append(part.trained)
            position += len(chunk) // 4
        stops.append(position)
    ids = np.frombuffer(b"".join(chunks), dtype=np.int32)
    carries: Any = np.repeat(np.array(trained, dtype=np.bool_), [len(chunk) // 4 for chunk in chunks])
    labels = np.where(carries, ids, np.int32(IGNORE_INDEX))
    labels[ends] = eos if eos is not None else IGNORE_INDEX
    return FlatTokens(ids, labels, np.diff(np.array([0, *stops], dtype=np.int64)))
