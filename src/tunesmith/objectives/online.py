"""What PPO and GRPO have in common: an objective over answers that the policy has just made and that were rewarded."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from tunesmith.objectives.base import Metrics, Objective

OLD_LOGPS = "old_logps"
"""Column: log-probabilities under the policy that made the answers, in nats."""
OLD_VALUES = "old_values"
"""Column: the critic's estimates when the answers were made."""
ADVANTAGES = "advantages"
RETURNS = "returns"

AnswerColumns = dict[str, torch.Tensor]
"""Name -> one number for each token of one answer, (T,)."""
Gather = Callable[[torch.Tensor], torch.Tensor]
"""(N,) numbers of this process to those of all processes; every process must call it."""


@dataclass(frozen=True, slots=True)
class Rewarded:
    """Answers of one step on this process, P prompts with G answers each, in that order.

    Attributes:
        columns: for each answer what was measured of its tokens; empty where nothing was asked for.
        lengths: tokens of each answer.
        scores: (P * G,) rewards.
        group: G.
        gather: joins numbers of all processes.
    """

    columns: Sequence[AnswerColumns]
    lengths: Sequence[int]
    scores: torch.Tensor
    group: int
    gather: Gather


class OnlineObjective(Objective):
    """An objective over answers of the policy.

    Attributes:
        epochs: times that each answer is trained on.
        measures: columns that must be known before the first update: any of OLD_LOGPS, REFERENCE_LOGPS, OLD_VALUES.
        skips_truncated: whether answers that were cut at the limit are left out.
    """

    example_kind = "conversation"
    epochs: int = 1
    measures: tuple[str, ...] = ()
    skips_truncated: bool = False

    @abstractmethod
    def columns(self, answers: Rewarded) -> tuple[list[AnswerColumns], Metrics]:
        """What the loss needs to know of each answer's tokens, beside what was measured; and metrics of the step."""
