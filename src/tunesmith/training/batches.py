"""From the rows of one optimizer step to micro-batches: laid end to end, cut by a token budget, never padded."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
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


def lay_end_to_end(rows: Sequence[Row], reads: str = "targets", parts: Iterable[int] | None = None) -> MicroBatch:
    """Makes the tensors of one micro-batch.

    Args:
        rows: at least one row.
        reads: `targets`: hidden states are taken where a trained token is predicted; `ends`: at the last token of each
            sequence, which stands in `targets`, too.
        parts: which sequences of each row are laid; None: all.

    Returns:
        A MicroBatch whose `targets` are the trained tokens, each predicted from the position before it in its own
        sequence; the sequences of a row lie beside each other.
    """
    sequences = [sequence for row in rows for sequence in _chosen(row, parts)]
    lengths = tuple(len(sequence.input_ids) for sequence in sequences)
    input_ids = torch.cat([torch.as_tensor(sequence.input_ids, dtype=torch.long) for sequence in sequences])
    position_ids = torch.cat([torch.arange(length) for length in lengths])
    of_token = torch.arange(len(lengths)).repeat_interleave(torch.tensor(lengths))
    if reads == "ends":
        positions = torch.tensor(lengths).cumsum(0) - 1
        targets_at, targets = positions, input_ids[positions]
    else:
        labels = torch.cat([torch.as_tensor(sequence.labels, dtype=torch.long) for sequence in sequences])
        # The first token of a sequence has nothing to predict it from.
        targets_at = ((labels != IGNORE_INDEX) & (position_ids > 0)).nonzero().squeeze(1)
        positions, targets = targets_at - 1, labels[targets_at]
    row_weights = torch.tensor([row.weight for row in rows])
    sequence_of = of_token[targets_at]
    weights = None
    if any(row.weight != 1 for row in rows):
        weights = row_weights.repeat_interleave(len(sequences) // len(rows))[sequence_of]
    return MicroBatch(
        input_ids,
        position_ids,
        lengths,
        positions,
        targets,
        weights,
        sequence_of=sequence_of,
        per_target=_columns(sequences),
        per_row={"weight": row_weights, "desirable": torch.tensor([row.is_desirable for row in rows])},
    )


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
    step: StepRows, budget: int, reads: str = "targets", parts: tuple[int, ...] | None = None
) -> list[MicroBatch]:
    """The micro-batches of a step, no row in two of them; rows without a trained token are left out.

    Args:
        step: rows.
        budget: tokens of a micro-batch.
        reads: see `lay_end_to_end`.
        parts: see `lay_end_to_end`.
    """
    rows = [row for row in step.rows if row.n_trained]
    lengths = [sum(len(sequence.input_ids) for sequence in _chosen(row, parts)) for row in rows]
    plan = plan_micro_batches(lengths, budget)
    return [lay_end_to_end([rows[index] for index in group], reads, parts) for group in plan]


def idle_batch(kind: str, reads: str = "targets", parts: Iterable[int] | None = None) -> MicroBatch:
    """For a process that has no row in a step while others have: a row that counts nothing.

    Args:
        kind: of example; those of judged answers have two sequences.
        reads: see `lay_end_to_end`.
        parts: see `lay_end_to_end`.
    """
    second = 2 if kind in ("preference", "feedback") else 0
    nothing = Row((0, 0, 0, 0), (IGNORE_INDEX, 0, IGNORE_INDEX, 0), -1, weight=0.0, second=second)
    return lay_end_to_end([nothing], reads, parts)
