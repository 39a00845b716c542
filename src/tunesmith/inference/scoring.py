"""Log-probabilities of given tokens, nothing generated: prompts that begin alike share keys and values of that part."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from tunesmith.core.errors import ModelError
from tunesmith.inference.engine import GenerationRequest
from tunesmith.inference.keys_values import common_prefix
from tunesmith.inference.line import LineForward
from tunesmith.inference.padded import PaddedForward
from tunesmith.inference.sampling import make_generator
from tunesmith.inference.sequence import Chunk
from tunesmith.inference.sequence import Sequence as Row
from tunesmith.models.live_adapter import LiveAdapter

PASS_COST = 32
"""A forward pass of its own for a shared beginning is worth as much as so many tokens."""
PIECE = 512
"""Tokens of a row, and of all beginnings, that go through the model at once."""


@dataclass(frozen=True, slots=True)
class ScoreRequest:
    """Tokens to score after a prompt.

    Attributes:
        prompt_ids: at least one token.
        continuation: tokens that follow the prompt, each scored after those before it; empty: `candidates` are meant.
        candidates: tokens that could come next after the prompt.
    """

    prompt_ids: Sequence[int]
    continuation: tuple[int, ...] = ()
    candidates: tuple[int, ...] = ()

    @property
    def run_ids(self) -> list[int]:
        """What the model reads; the last token of a continuation predicts nothing that is asked for."""
        return [*self.prompt_ids, *self.continuation[:-1]]

    @property
    def n_wanted(self) -> int:
        """Of how many of the last tokens read the logits are needed."""
        return max(len(self.continuation), 1)


@dataclass(frozen=True, slots=True)
class Score:
    """Log-probabilities in nats over the whole vocabulary.

    Attributes:
        logprobs: of each token of the continuation, or of each candidate.
        is_greedy: the continuation is what the likeliest token at each step would give; False for candidates.
    """

    logprobs: tuple[float, ...]
    is_greedy: bool = False


@dataclass(slots=True)
class _Group:
    """Requests that share a beginning.

    Attributes:
        shared: tokens of it; 0: nothing is shared.
        members: indices of requests.
    """

    shared: int
    members: list[int]


def plan_groups(requests: Sequence[ScoreRequest]) -> list[_Group]:
    """Puts requests together whose common beginning is worth a forward pass of its own; each request once.

    Sorted by their ids, requests with a common beginning are neighbours. A request joins the group before it where the
    tokens that it saves outweigh what the others lose by a shorter common beginning.
    """
    ids = [np.asarray(request.run_ids, dtype=np.int64) for request in requests]
    room = [len(row) - request.n_wanted for row, request in zip(ids, requests, strict=True)]
    order = sorted(range(len(requests)), key=lambda i: ids[i].tolist())
    groups: list[_Group] = []
    for before, index in zip([None, *order], order, strict=False):
        if before is not None:
            group = groups[-1]
            held = group.shared if len(group.members) > 1 else room[before]
            shared = min(held, common_prefix(ids[before], ids[index]), room[index])
            lost = (len(group.members) - 1) * (group.shared - shared)
            begins = PASS_COST if len(group.members) == 1 else 0
            if shared > lost + begins:
                group.shared = shared
                group.members.append(index)
                continue
        groups.append(_Group(0, [index]))
    return groups


class PromptScorer:
    """Scores requests with the forward pass of an engine.

    Args:
        forward: the engine's.
        batch_size: rows that go through the model together.
        adapter: live adapter that answers; None: the model as it is.
    """

    def __init__(
        self, forward: LineForward | PaddedForward, batch_size: int, adapter: LiveAdapter | None = None
    ) -> None:
        self._forward = forward
        self._batch_size = batch_size
        self._adapter = adapter

    def score(self, requests: Sequence[ScoreRequest]) -> Iterator[tuple[int, Score]]:
        """Yields (index of the request, its score), in any order, as batches are done."""
        if isinstance(self._forward, LineForward):
            yield from self._score_line(requests, self._forward)
        else:
            yield from self._score_padded(requests, self._forward)

    # -- rows end to end over shared keys and values

    def _score_line(self, requests: Sequence[ScoreRequest], forward: LineForward) -> Iterator[tuple[int, Score]]:
        window: list[_Group] = []
        held = 0
        for group in plan_groups(requests):
            if window and (held + group.shared > PIECE or sum(len(one.members) for one in window) >= self._batch_size):
                yield from self._score_window(requests, window, forward)
                window, held = [], 0
            window.append(group)
            held += group.shared
        if window:
            yield from self._score_window(requests, window, forward)

    def _score_window(
        self, requests: Sequence[ScoreRequest], groups: list[_Group], forward: LineForward
    ) -> Iterator[tuple[int, Score]]:
        """Reads the shared beginnings together, then what is left of the rows, the longest first."""
        rows: list[tuple[int, Row]] = []
        heads: list[Row] = []
        for group in groups:
            first = requests[group.members[0]].run_ids
            head = self._row(first[: group.shared]) if group.shared else None
            if head is not None:
                head.values.reserve(max(len(requests[i].run_ids) for i in group.members))
                heads.append(head)
            for index in group.members:
                row = self._row(requests[index].run_ids)
                if head is not None:
                    row.values, row.n_cached = head.values, group.shared
                rows.append((index, row))
        _read(heads, forward)
        rows.sort(key=lambda pair: pair[1].n_cached - pair[1].length)
        while rows:
            batch = self._next_batch(rows)
            yield from zip(
                [index for index, _ in batch],
                _score_rows([(requests[index], row) for index, row in batch], forward),
                strict=True,
            )

    def _row(self, ids: list[int]) -> Row:
        return Row(0, 0, GenerationRequest(ids), 1, generator=make_generator(0), adapter=self._adapter)

    def _next_batch(self, rows: list[tuple[int, Row]]) -> list[tuple[int, Row]]:
        """Takes up to `batch_size` rows off the list; a row that must be read in pieces stays alone."""
        taken = [rows.pop(0)]
        if taken[0][1].length - taken[0][1].n_cached <= PIECE:
            while rows and len(taken) < self._batch_size:
                taken.append(rows.pop(0))
        return taken

    # -- whole padded prompts, for models that cannot take a line

    def _score_padded(self, requests: Sequence[ScoreRequest], forward: PaddedForward) -> Iterator[tuple[int, Score]]:
        ids = [request.run_ids for request in requests]
        order = sorted(range(len(requests)), key=lambda i: -len(ids[i]))
        for start in range(0, len(order), self._batch_size):
            batch = order[start : start + self._batch_size]
            wanted = [requests[i].n_wanted for i in batch]
            logits = forward.whole([ids[i] for i in batch], wanted, self._adapter)
            for index, part in zip(batch, logits, strict=True):
                yield index, _joined([_score_part(requests[index], part, 0)])


def _read(rows: Sequence[Row], forward: LineForward) -> None:
    """Fills the keys and values of rows, in pieces."""
    waiting = list(rows)
    while waiting:
        chunks, left = [], PIECE
        for row in waiting:
            end = min(row.length, row.n_cached + left)
            chunks.append(Chunk(row, end))
            left -= end - row.n_cached
            if left <= 0:
                break
        forward.forward(chunks, [0] * len(chunks))
        for chunk in chunks:
            chunk.sequence.n_cached = chunk.end
        waiting = [row for row in waiting if row.n_cached < row.length]


def _score_rows(batch: Sequence[tuple[ScoreRequest, Row]], forward: LineForward) -> list[Score]:
    """One forward pass; a single row may be longer than a piece and takes several."""
    if len(batch) == 1:
        return [_joined(list(_score_pieces(*batch[0], forward)))]
    counts = [request.n_wanted for request, _ in batch]
    logits = forward.forward([Chunk(row, row.length) for _, row in batch], counts)
    parts = logits.split(counts)
    return [_joined([_score_part(request, part, 0)]) for (request, _), part in zip(batch, parts, strict=True)]


def _score_pieces(request: ScoreRequest, row: Row, forward: LineForward) -> Iterator[Score]:
    """The scores of one row, piece by piece: the logits of a long continuation are never there at once."""
    first = row.length - request.n_wanted
    while row.n_cached < row.length:
        begin, end = row.n_cached, min(row.length, row.n_cached + PIECE)
        n_wanted = max(0, end - max(first, begin))
        logits = forward.forward([Chunk(row, end)], [n_wanted])
        row.n_cached = end
        if n_wanted:
            yield _score_part(request, logits, max(begin - first, 0))


def _score_part(request: ScoreRequest, logits: torch.Tensor, start: int) -> Score:
    """Scores of the candidates, or of the continuation from token `start` on, from logits (n, V)."""
    logprobs = torch.log_softmax(logits.float(), dim=-1)
    if not request.continuation:
        return Score(tuple(logprobs[0, list(request.candidates)].tolist()))
    targets = torch.tensor(request.continuation[start : start + len(logits)], device=logits.device)
    picked = logprobs.gather(1, targets[:, None])[:, 0]
    return Score(tuple(picked.tolist()), bool((logits.argmax(dim=-1) == targets).all()))


def _joined(parts: Sequence[Score]) -> Score:
    return Score(tuple(value for part in parts for value in part.logprobs), all(part.is_greedy for part in parts))


def check_requests(requests: Sequence[ScoreRequest], context: int | None) -> None:
    """Refuses what cannot be scored.

    Raises:
        ModelError: an empty prompt, nothing to score, or more tokens than the context holds.
    """
    for number, request in enumerate(requests):
        if not len(request.prompt_ids):
            raise ModelError(f"request {number}: a prompt without tokens cannot be scored")
        if bool(request.continuation) == bool(request.candidates):
            raise ModelError(f"request {number}: either a continuation or candidates are to be scored")
        if context is not None and len(request.run_ids) > context:
            raise ModelError(f"request {number} has {len(request.run_ids)} tokens, the model's context holds {context}")
