"""Which requests go through the model together. Pure lists of numbers: no model here."""

from __future__ import annotations

from collections.abc import Sequence


def sorted_batches(lengths: Sequence[int], batch_size: int) -> list[list[int]]:
    """Groups indices of similar length, longest first, so that little is padded and a lack of memory shows at once.

    Args:
        lengths: prompt lengths in tokens.
        batch_size: rows of a batch at most.

    Returns:
        Lists of indices; each index once; equal lengths stay in input order.
    """
    order = sorted(range(len(lengths)), key=lambda index: -lengths[index])
    return [order[start : start + batch_size] for start in range(0, len(order), batch_size)]
