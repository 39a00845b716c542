"""Best-fit packing: which rows share an item. Keeping them apart inside it is the trainer's work, through `lengths`."""

from __future__ import annotations

from bisect import bisect_right, insort
from collections import defaultdict, deque
from collections.abc import Sequence


def best_fit(lengths: Sequence[int], capacity: int) -> list[list[int]]:
    """Fills packs one after the other, each time with the longest row that still fits.

    Args:
        lengths: tokens of each row.
        capacity: tokens that a pack holds.

    Returns:
        Row indices of each pack; rows of equal length keep their order.

    Raises:
        ValueError: a row is longer than the capacity.
    """
    waiting: dict[int, deque[int]] = defaultdict(deque)
    for index, length in enumerate(lengths):
        if length > capacity:
            raise ValueError(f"row {index} has {length} tokens, a pack holds {capacity}")
        waiting[int(length)].append(index)
    sizes: list[int] = []
    for length in waiting:
        insort(sizes, length)
    packs = []
    while sizes:
        pack, room = [], capacity
        while place := bisect_right(sizes, room):
            length = sizes[place - 1]
            pack.append(waiting[length].popleft())
            room -= length
            if not waiting[length]:
                del sizes[place - 1]
        packs.append(pack)
    return packs
