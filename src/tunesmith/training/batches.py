"""From the rows of one optimizer step to micro-batches: rows laid end to end, cut by a token budget, never padded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from tunesmith.core.types import IGNORE_INDEX
from tunesmith.models.forward import MicroBatch


@dataclass(frozen=True, slots=True)
class Row:
    """One row of a step; a packed item gives several.

    Attributes:
        input_ids: token ids.
        labels: same length, IGNORE_INDEX where no loss.
        number: the row's number in the training set, for messages.
        weight: factor on its loss; each of its trained tokens counts as that many items.
    """

    input_ids: Sequence[int]
    labels: Sequence[int]
    number: int
    weight: float = 1.0

    @property
    def n_trained(self) -> int:
        """Tokens that carry loss."""
        return sum(label != IGNORE_INDEX for label in self.labels[1:])


class StepRows:
    """The rows of one optimizer step (or of one evaluation batch), as the data loader hands them over.

    A class of our own, so that accelerate passes it through instead of walking into lists of integers.
    """

    def __init__(self, rows: list[Row]) -> None:
        self.rows = rows
        self.n_tokens = sum(len(row.input_ids) for row in rows)
        self.n_trained = sum(row.n_trained for row in rows)
        self.is_weighted = any(row.weight != 1 for row in rows)
        self.n_items: float = sum(row.weight * row.n_trained for row in rows) if self.is_weighted else self.n_trained

    def __len__(self) -> int:
        return len(self.rows)


def collate(items: Sequence[Mapping[str, Any]]) -> StepRows:
    """Data-set items `{input_ids, labels, lengths, rows}` to StepRows; packed items are taken apart again.

    An item may have `weights`, one a row.
    """
    rows: list[Row] = []
    for item in items:
        start = 0
        weights = item.get("weights") or [1.0] * len(item["rows"])
        for length, number, weight in zip(item["lengths"], item["rows"], weights, strict=True):
            end = start + length
            rows.append(Row(item["input_ids"][start:end], item["labels"][start:end], number, weight))
            start = end
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


def lay_end_to_end(rows: Sequence[Row]) -> MicroBatch:
    """Makes the tensors of one micro-batch.

    Args:
        rows: at least one row.

    Returns:
        A MicroBatch whose `targets` are the trained tokens, each predicted from the position before it in its own row.
    """
    lengths = tuple(len(row.input_ids) for row in rows)
    input_ids = torch.cat([torch.as_tensor(row.input_ids, dtype=torch.long) for row in rows])
    labels = torch.cat([torch.as_tensor(row.labels, dtype=torch.long) for row in rows])
    position_ids = torch.cat([torch.arange(length) for length in lengths])
    trained = (labels != IGNORE_INDEX) & (position_ids > 0)  # the first token of a row has nothing to predict it from
    targets_at = trained.nonzero().squeeze(1)
    weights = None
    if any(row.weight != 1 for row in rows):
        of_rows = torch.tensor([row.weight for row in rows])
        weights = of_rows.repeat_interleave(torch.tensor(lengths))[targets_at]
    return MicroBatch(input_ids, position_ids, lengths, targets_at - 1, labels[targets_at], weights)


def micro_batches(step: StepRows, budget: int) -> list[MicroBatch]:
    """The micro-batches of a step; rows without a trained token are left out, since they change no gradient."""
    rows = [row for row in step.rows if row.n_trained]
    plan = plan_micro_batches([len(row.input_ids) for row in rows], budget)
    return [lay_end_to_end([rows[index] for index in group]) for group in plan]


IDLE = lay_end_to_end([Row((0, 0), (IGNORE_INDEX, 0), -1)])
"""For a process that has no row in a step while others have."""
