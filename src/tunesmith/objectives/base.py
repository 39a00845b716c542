"""What an objective is: which examples it needs, what counts as an item, and a loss that is a sum."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Self

import torch

from tunesmith.objectives.logprobs import Head, per_token_logps

if TYPE_CHECKING:
    from tunesmith.config.schema import RunConfig

REFERENCE_LOGPS = "reference_logps"
"""Column of `Scored.per_target`: log-probabilities of the targets under the reference, in nats."""
Metrics = dict[str, tuple[torch.Tensor, float]]
"""Name -> (sum, count), added up over micro-batches and divided once; names that begin with _ are not shown."""
_RIGHT_LONGER, _RIGHT_SHORTER = "_right/longer", "_right/shorter"


@dataclass(frozen=True, slots=True)
class LossOutput:
    """The loss of one micro-batch.

    Attributes:
        loss_sum: scalar with gradient, a SUM over items; the trainer divides once by the items of the whole step.
        metrics: name -> (sum, count), added up over micro-batches and divided once.
    """

    loss_sum: torch.Tensor
    metrics: Metrics = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Scored:
    """What a model made of one micro-batch: N targets in S sequences of R rows.

    Attributes:
        hidden: (N, H) hidden states that predict the targets; with `reads = "ends"` those of the last tokens, N = S.
        head: maps hidden states to logits.
        targets: (N,) token ids.
        weights: (N,) factor on the loss of each target; None: all are 1.
        sequence_of: (N,) the sequence of each target, ascending; the sequences of a row follow each other.
        n_sequences: S.
        per_target: name -> (N,); `reference_logps` where the objective needs a reference.
        per_row: name -> (R,): `weight`, `desirable` (bool).
        reference: the same targets under the reference model, for objectives that need its whole distribution.
        baseline: what `baseline_sum` added up to over the whole step, divided by its count.
        value_head: maps hidden states (n, H) to values (n,), where the objective needs one.
    """

    hidden: torch.Tensor
    head: Head
    targets: torch.Tensor
    weights: torch.Tensor | None = None
    sequence_of: torch.Tensor | None = None
    n_sequences: int = 0
    per_target: Mapping[str, torch.Tensor] = field(default_factory=dict)
    per_row: Mapping[str, torch.Tensor] = field(default_factory=dict)
    reference: Scored | None = None
    baseline: torch.Tensor | None = None
    value_head: Callable[[torch.Tensor], torch.Tensor] | None = None

    def per_token_logps(self) -> torch.Tensor:
        """(N,) log-probabilities of the targets in nats, with gradient."""
        return per_token_logps(self.hidden, self.head, self.targets)

    def by_sequence(self, values: torch.Tensor) -> torch.Tensor:
        """(S,) sums of (N,) values over each sequence."""
        return torch.segment_reduce(values, "sum", lengths=self.lengths(), unsafe=True)

    def places(self) -> torch.Tensor:
        """(N,) the place of each target among the targets of its sequence, from 0."""
        starts = self.lengths().cumsum(0) - self.lengths()
        return torch.arange(len(self.targets), device=self.targets.device) - starts[self._sequence_of]

    def lengths(self) -> torch.Tensor:
        """(S,) targets of each sequence."""
        return torch.bincount(self._sequence_of, minlength=self.n_sequences)

    @property
    def _sequence_of(self) -> torch.Tensor:
        if self.sequence_of is None:
            raise AssertionError("this micro-batch does not say which sequence a target is in")
        return self.sequence_of


class Objective(ABC):
    """What is minimised. The trainer asks for nothing else.

    Attributes:
        example_kind: `conversation`, `preference`, `feedback` or `text`, as in `KIND_OF_STAGE`.
        item: what the loss is a mean over: a trained `token` or a `row`; a row's weight counts it as that many.
        reads: hidden states at the positions that predict `targets`, or at the `ends` of sequences.
        reference: `none`; `logps`: of the targets; `scored`: hidden states and head of the reference model.
        parts: which sequences of a row the loss reads; None: all.
        baseline_parts: which sequences `baseline_sum` reads, in a pass before the step; None: no such pass.
        needs_value_head: whether a head that gives one number a token is trained.
        observes: whether `observe` is to be called.
    """

    example_kind: ClassVar[str]
    item: str = "token"
    reads: ClassVar[str] = "targets"
    needs_value_head: ClassVar[bool] = False
    observes: bool = False
    reference: str = "none"
    parts: tuple[int, ...] | None = None
    baseline_parts: tuple[int, ...] | None = None

    @classmethod
    def build(cls, config: RunConfig) -> Self:
        """The objective with the settings of a run."""
        return cls()

    @abstractmethod
    def loss(self, scored: Scored) -> LossOutput:
        """The loss sum over the items of a micro-batch, and the metrics."""

    def baseline_sum(self, scored: Scored) -> tuple[torch.Tensor, float]:
        """(sum, count) of what the loss needs to know of the whole step; no gradient flows through it."""
        raise NotImplementedError

    def derived(self, means: Mapping[str, float]) -> dict[str, float]:
        """Metrics that are no means themselves, made of those that are (`loss` among them); for log and evaluation."""
        return {}

    def observe(self, metrics: Mapping[str, tuple[float, float]]) -> None:
        """Told the metrics (sum, count) of each training step, all processes together."""
        raise NotImplementedError

    def state(self) -> dict[str, Any]:
        """What a resume must know; plain JSON."""
        return {}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Takes what `state` gave."""
        if state:
            raise AssertionError(f"{type(self).__name__} keeps no state")


class PairObjective(Objective):
    """An objective of pairs of answers: the first sequence of a row is the chosen one, the second the rejected one."""

    example_kind = "preference"
    item = "row"

    def pair_metrics(self, rewards: torch.Tensor, logps: torch.Tensor, scored: Scored) -> Metrics:
        """What users read of pairs, as sums over pairs.

        Args:
            rewards: (R, 2) of the chosen and the rejected answer.
            logps: (R, 2) log-probabilities in nats.
            scored: the micro-batch.
        """
        rewards, logps, weights = rewards.detach(), logps.detach(), scored.per_row["weight"]
        is_right = (rewards[:, 0] > rewards[:, 1]).to(rewards.dtype)
        seen = {
            "rewards/chosen": rewards[:, 0],
            "rewards/rejected": rewards[:, 1],
            "rewards/accuracies": is_right,
            "rewards/margins": rewards[:, 0] - rewards[:, 1],
            "logps/chosen": logps[:, 0],
            "logps/rejected": logps[:, 1],
        }
        lengths = scored.lengths().view(-1, 2)
        longer = weighted({_RIGHT_LONGER: is_right}, weights * (lengths[:, 0] > lengths[:, 1]))
        shorter = weighted({_RIGHT_SHORTER: is_right}, weights * (lengths[:, 0] < lengths[:, 1]))
        return weighted(seen, weights) | longer | shorter

    def derived(self, means: Mapping[str, float]) -> dict[str, float]:
        """`rewards/length_bias`: how much oftener a pair is right where the chosen answer is the longer one."""
        if not {_RIGHT_LONGER, _RIGHT_SHORTER} <= means.keys():
            return {}
        return {"rewards/length_bias": means[_RIGHT_LONGER] - means[_RIGHT_SHORTER]}


def weighted(values: Mapping[str, torch.Tensor], weights: torch.Tensor) -> Metrics:
    """(R,) values as (weighted sum, sum of weights)."""
    count = float(weights.sum())
    return {name: ((value.detach() * weights).sum(), count) for name, value in values.items()}


OBJECTIVES = {
    "pt": "tunesmith.objectives.pt:TextObjective",
    "sft": "tunesmith.objectives.sft:SupervisedObjective",
    "rm": "tunesmith.objectives.rm:RewardObjective",
    "dpo": "tunesmith.objectives.dpo:PreferenceObjective",
    "orpo": "tunesmith.objectives.orpo:OddsRatioObjective",
    "simpo": "tunesmith.objectives.simpo:SimpleObjective",
    "kto": "tunesmith.objectives.kto:FeedbackObjective",
    "grpo": "tunesmith.objectives.grpo:GroupObjective",
    "ppo": "tunesmith.objectives.ppo:ProximalObjective",
}
"""stage, or preference loss with an objective of its own -> class."""


def objective_name(stage: str, pref_loss: str) -> str:
    """The entry of OBJECTIVES for a run."""
    return pref_loss if stage == "dpo" and pref_loss in OBJECTIVES else stage
