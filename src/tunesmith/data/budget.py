"""The length budget: how many tokens of a prompt and of its answer fit. Pure numbers; tokenize.py does the cutting."""

from __future__ import annotations


def share_budget(source: int, target: int, budget: int) -> tuple[int, int]:
    """Shares a budget between a prompt and its answer.

    The short side is kept whole, the long one is cut; where both are long they share in proportion.

    Args:
        source: tokens of the prompt.
        target: tokens of the answer.
        budget: tokens that there is room for.

    Returns:
        (tokens of the prompt to keep, tokens of the answer to keep).
    """
    if target * 2 < budget:
        kept = target
    elif source * 2 < budget:
        kept = min(target, budget - source)
    else:
        kept = min(target, budget * target // max(source + target, 1))
    return min(source, max(budget - kept, 0)), kept


def share_turns(
    turns: list[tuple[int, int]], cutoff_len: int, reserved: int = 0, last_first: bool = False
) -> list[tuple[int, int]]:
    """Shares `cutoff_len` among the turns of a conversation, one after the other.

    Args:
        turns: (prompt, answer) tokens of each turn.
        cutoff_len: tokens of the longest row.
        reserved: tokens that something else takes (a final eos).
        last_first: later turns are served first, as `mask_history` needs.

    Returns:
        (prompt, answer) tokens to keep of each turn, in natural order; (0, 0) for a turn that is dropped.
    """
    kept = [(0, 0)] * len(turns)
    used = reserved
    order = range(len(turns))
    for index in reversed(order) if last_first else order:
        if used >= cutoff_len:
            break
        kept[index] = share_budget(*turns[index], cutoff_len - used)
        used += sum(kept[index])
    return kept
