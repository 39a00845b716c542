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
"""Name -> (sum, count), added up over micro-batches and divided once."""


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
    item: ClassVar[str] = "token"
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


OBJECTIVES = {
    "sft": "tunesmith.objectives.sft:SupervisedObjective",
    "dpo": "tunesmith.objectives.dpo:PreferenceObjective",
}
"""stage, or preference loss with an objective of its own -> class."""


def objective_name(stage: str, pref_loss: str) -> str:
    """The entry of OBJECTIVES for a run."""
    return pref_loss if stage == "dpo" and pref_loss in OBJECTIVES else stage
