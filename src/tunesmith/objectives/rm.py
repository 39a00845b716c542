"""Reward models: the chosen answer of a pair should score higher than the rejected one."""

from __future__ import annotations

import torch
from torch.nn import functional as F  # noqa: N812 - the field's name for it

from tunesmith.objectives.base import LossOutput, Objective, Scored, weighted


def ranking_loss(chosen: torch.Tensor, rejected: torch.Tensor) -> torch.Tensor:
    """-log sigma(c - r): the Bradley-Terry loss of InstructGPT (arXiv 2203.02155, equation 1).

    Args:
        chosen: (R,) scores of the chosen answers.
        rejected: (R,) scores of the rejected answers.
    """
    return -F.logsigmoid(chosen - rejected)


class RewardObjective(Objective):
    """Sum over pairs of the ranking loss; the score of a sequence is the value head's answer to its last token."""

    example_kind = "preference"
    item = "row"
    reads = "ends"
    needs_value_head = True

    def loss(self, scored: Scored) -> LossOutput:
        """See `Objective.loss`; `accuracy` is the share of pairs in the right order."""
        if scored.value_head is None:
            raise AssertionError("a reward model needs a value head")
        scores = scored.value_head(scored.hidden).float().view(-1, 2)
        losses = ranking_loss(scores[:, 0], scores[:, 1])
        weights = scored.per_row["weight"]
        seen = {
            "accuracy": (scores[:, 0] > scores[:, 1]).float(),
            "rewards/chosen": scores[:, 0],
            "rewards/rejected": scores[:, 1],
            "rewards/margins": scores[:, 0] - scores[:, 1],
        }
        return LossOutput((losses * weights).sum(), weighted(seen, weights))
