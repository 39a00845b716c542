"""From the rows of one optimizer step to micro-batches: laid end to end, cut by a token budget, never padded."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate, pairwise
from typing import Any

import torch

from tunesmith.core.types import IGNORE_INDEX
from tunesmith.models.forward import MicroBatch

Columns = Mapping[str, Sequence[float]]
"""Name -> one number for each trained token, such as its log-probability under a reference."""


@dataclass(frozen=True, slots=True)
class Tokens:
    """One sequence: its ids, its labels, and what the columns hold for its trained tokens."""

    input_ids: Sequence[int]
    labels: Sequence[int]
    columns: Columns

    @property
    def n_trained(self) -> int:
        """Tokens that carry loss; the first has nothing to predict it from."""
        return count_trained(self.labels)


def count_trained(labels: Sequence[int]) -> int:
    """Tokens of a sequence that carry loss."""
    return sum(label != IGNORE_INDEX for label in labels[1:])


@dataclass(frozen=True, slots=True)
class Row:
    """One row of a step; a packed item gives several.

    Attributes:
        input_ids: token ids.
        labels: same length, IGNORE_INDEX where no loss.
        number: the row's number in the training set, for messages.
        weight: factor on its loss; the row, or each of its trained tokens, counts as that many items.
        second: where its second sequence begins; 0: it is one sequence.
        is_desirable: the verdict on its answer.
        columns: numbers for its trained tokens, first sequence first.
    """

    input_ids: Sequence[int]
    labels: Sequence[int]
    number: int
    weight: float = 1.0
    second: int = 0
    is_desirable: bool = True
    columns: Columns = field(default_factory=dict)

    @property
    def sequences(self) -> list[Tokens]:
        """Its one or two sequences."""
        if not self.second:
            return [Tokens(self.input_ids, self.labels, self.columns)]
        found, taken = [], 0
        for start, stop in pairwise((0, self.second, len(self.input_ids))):
            labels = self.labels[start:stop]
            until = taken + count_trained(labels)
            columns = {name: values[taken:until] for name, values in self.columns.items()}
            found.append(Tokens(self.input_ids[start:stop], labels, columns))
            taken = until
        return found

    @property
    def n_trained(self) -> int:
        """Tokens that carry loss."""
        return sum(sequence.n_trained for sequence in self.sequences)


class StepRows:
    """The rows of one optimizer step (or of one evaluation batch), as the data loader hands them over.

    A class of our own, so that accelerate passes it through instead of walking into lists of integers.
    """

    def __init__(self, rows: list[Row]) -> None:
        self.rows = rows
        trained = [row.n_trained for row in rows]
        self.n_tokens = sum(len(row.input_ids) for row in rows)
        self.n_trained = sum(trained)
        self.is_weighted = any(row.weight != 1 for row in rows)
        self.n_items: float = self.n_trained
        if self.is_weighted:
            self.n_items = sum(row.weight * count for row, count in zip(rows, trained, strict=True))

    def __len__(self) -> int:
        return len(self.rows)

    def count(self, item: str) -> float:
        """What the loss sum is to be divided by, each row by its weight.

        Args:
            item: `token` counts trained tokens, `row` rows.
        """
        return self.n_items if item == "token" else sum(row.weight for row in self.rows)


def collate(items: Sequence[Mapping[str, Any]]) -> StepRows:
    """Data-set items (`data.rows.TrainItem`) to StepRows; packed items are taken apart again."""
    rows: list[Row] = []
    for item in items:
        start, count = 0, len(item["rows"])
        weights = item.get("weights") or [1.0] * count
        seconds = item.get("seconds") or [0] * count
        verdicts = item.get("desirable") or [True] * count
        for place, (length, number) in enumerate(zip(item["lengths"], item["rows"], strict=True)):
            ids, labels = item["input_ids"][start : start + length], item["labels"][start : start + length]
            columns = {name: values[place] for name, values in item.get("columns", {}).items()}
            rows.append(Row(ids, labels, number, weights[place], seconds[place], verdicts[place], columns))
            start += length
    return StepRows(rows)


def plan_micro_batches(lengths: Sequence[int], budget: int) -> list[list[int]]:
    """Groups rows into micro-batches of at most `budget` tokens: first-fit decreasing, ties by row order.

    Args:
        lengths: tokens of each row.
        budget: tokens of a micro-batch; a longer row gets a micro-batch of its own.

    Returns:
        Indices of rows, each exactly once; deterministic.
    """
    order = sorted(range(len(lengths)), key=lambda index: (-lengths[index], index))
    groups: list[list[int]] = []
    room: list[int] = []
    for index in order:
        place = next((i for i, free in enumerate(room) if free >= lengths[index]), None)
        if place is None:
            groups.append([index])
            room.append(budget - lengths[index])
        else:
            groups[place].append(index)
            room[place] -= lengths[index]
    return [sorted(group) for group in groups]


def lay_end_to_end(
    rows: Sequence[Row], reads: str = "targets", parts: Iterable[int] | None = None, *, shares: bool = False
) -> MicroBatch:
    """Makes the tensors of one micro-batch.

    Args:
        rows: at least one row.
        reads: `targets`: hidden states are taken where a trained token is predicted; `ends`: at the last token of each
            sequence, which stands in `targets`, too.
        parts: which sequences of each row are laid; None: all.
        shares: the untrained beginning that the two sequences of a row have in common is laid once.

    Returns:
        A MicroBatch whose `targets` are the trained tokens, each predicted from the position before it in its own
        sequence; the sequences of a row lie beside each other.
    """
    laid = [_lay(_chosen(row, parts), shares) for row in rows]
    sequences = [sequence for one in laid for sequence in one.sequences]
    starts = [0, *accumulate(len(one.ids) for one in laid)]
    # Where each token of each sequence is in the line, sequence after sequence.
    at = torch.cat([places + start for one, start in zip(laid, starts, strict=False) for places in one.places])
    lengths = torch.tensor([len(sequence.input_ids) for sequence in sequences])
    ends = lengths.cumsum(0) - 1
    of_token = torch.arange(len(lengths)).repeat_interleave(lengths)
    if reads == "ends":
        chosen, predicting = ends, ends
        labels = torch.cat([torch.as_tensor(sequence.input_ids, dtype=torch.long) for sequence in sequences])
    else:
        labels = torch.cat([torch.as_tensor(sequence.labels, dtype=torch.long) for sequence in sequences])
        has_before = torch.ones(len(labels), dtype=torch.bool)
        has_before[ends - lengths + 1] = False  # the first token of a sequence has nothing to predict it from
        chosen = ((labels != IGNORE_INDEX) & has_before).nonzero().squeeze(1)
        predicting = chosen - 1
    sequence_of = of_token[chosen]
    row_weights = torch.tensor([row.weight for row in rows])
    weights = None
    if any(row.weight != 1 for row in rows):
        weights = row_weights.repeat_interleave(len(sequences) // len(rows))[sequence_of]
    forks = tuple(fork for one in laid for fork in one.forks)
    return MicroBatch(
        torch.cat([torch.as_tensor(one.ids, dtype=torch.long) for one in laid]),
        torch.cat([one.position_ids for one in laid]),
        tuple(length for one in laid for length in one.lengths),
        at[predicting],
        labels[chosen],
        weights,
        sequence_of=sequence_of,
        per_target=_columns(sequences),
        per_row={"weight": row_weights, "desirable": torch.tensor([row.is_desirable for row in rows])},
        forks=forks if any(forks) else None,
    )


@dataclass(frozen=True, slots=True)
class _Laid:
    """The sequences of one row in the line.

    Attributes:
        sequences: as they are.
        ids: tokens in the line.
        position_ids: of these tokens, in their sequence.
        places: for each sequence where each of its tokens is among `ids`.
        lengths: tokens of each attention row.
        forks: how each attention row forks, () where it is one sequence.
    """

    sequences: list[Tokens]
    ids: list[int]
    position_ids: torch.Tensor
    places: list[torch.Tensor]
    lengths: list[int]
    forks: list[tuple[int, ...]]


def _lay(sequences: list[Tokens], shares: bool) -> _Laid:
    """One sequence behind the other, or both behind their common beginning."""
    head = common_beginning(*sequences) if shares and len(sequences) == 2 else 0
    counts = [len(sequence.input_ids) for sequence in sequences]
    ids = list(sequences[0].input_ids[:head])
    position_ids, places = [torch.arange(head)], []
    for sequence, count in zip(sequences, counts, strict=True):
        places.append(torch.cat([torch.arange(head), torch.arange(len(ids), len(ids) + count - head)]))
        position_ids.append(torch.arange(head, count))
        ids += sequence.input_ids[head:]
    if head:
        return _Laid(
            sequences, ids, torch.cat(position_ids), places, [len(ids)], [(head, *(count - head for count in counts))]
        )
    return _Laid(sequences, ids, torch.cat(position_ids), places, counts, [()] * len(counts))


def common_beginning(one: Tokens, other: Tokens) -> int:
    """Tokens that two sequences begin with, up to where either is trained; at least one is left of each."""
    most = min(len(one.input_ids), len(other.input_ids)) - 1
    for place in range(most):
        left, right = one.input_ids[place], other.input_ids[place]
        if left != right or one.labels[place] != IGNORE_INDEX or other.labels[place] != IGNORE_INDEX:
            return place
    return max(most, 0)


def _chosen(row: Row, parts: Iterable[int] | None) -> list[Tokens]:
    sequences = row.sequences
    return sequences if parts is None else [sequences[part] for part in parts]


def _columns(sequences: Sequence[Tokens]) -> dict[str, torch.Tensor]:
    names = sequences[0].columns
    return {
        name: torch.tensor([value for one in sequences for value in one.columns[name]], dtype=torch.float32)
        for name in names
    }


def micro_batches(
    step: StepRows,
    budget: int,
    reads: str = "targets",
    parts: tuple[int, ...] | None = None,
    *,
    shares: bool = False,
) -> list[MicroBatch]:
    """The micro-batches of a step, no row in two of them; rows without a trained token are left out.

    Args:
        step: rows.
        budget: tokens of a micro-batch.
        reads: see `lay_end_to_end`.
        parts: see `lay_end_to_end`.
        shares: see `lay_end_to_end`.
    """
    rows = [row for row in step.rows if row.n_trained]
    plan = plan_micro_batches([line_length(row, parts, shares=shares) for row in rows], budget)
    return [lay_end_to_end([rows[index] for index in group], reads, parts, shares=shares) for group in plan]


def line_length(row: Row, parts: Iterable[int] | None = None, *, shares: bool = False) -> int:
    """Tokens that a row takes in a line; arguments as of `lay_end_to_end`."""
    sequences = _chosen(row, parts)
    total = sum(len(sequence.input_ids) for sequence in sequences)
    return total - common_beginning(*sequences) if shares and len(sequences) == 2 else total
