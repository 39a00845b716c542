"""Supervised fine-tuning: the cross-entropy of trained tokens, as it is or weighed by what the model makes of them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

import torch

from tunesmith.objectives.base import LossOutput, Metrics, Objective, Scored
from tunesmith.objectives.logprobs import cross_entropy_sum, per_token_kl

if TYPE_CHECKING:
    from tunesmith.config.schema import RunConfig

TOP_K = 20
"""Tokens over which EAFT takes the entropy."""


@dataclass(frozen=True, slots=True)
class TokenLoss:
    """How tokens are weighed.

    Attributes:
        kind: `plain`, `dft`, `asft` or `eaft`.
        asft_alpha: factor on the KL to the reference.
        eaft_alpha: exponent of the entropy.
        label_smoothing: share of the target spread over all tokens.
    """

    kind: str = "plain"
    asft_alpha: float = 0.1
    eaft_alpha: float = 1.0
    label_smoothing: float = 0.0


def own_probability(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """The probability that the model gives each target: the factor of DFT (arXiv 2508.05629).

    Args:
        logits: (n, V).
        targets: (n,).
    """
    return (logits.gather(1, targets[:, None]).squeeze(1) - logits.logsumexp(dim=-1)).exp()


def top_entropy(logits: torch.Tensor, alpha: float) -> torch.Tensor:
    """(H / ln K)^alpha, H the entropy of the K = 20 likeliest tokens among themselves: the factor of EAFT.

    EAFT: arXiv 2601.02151. Where the vocabulary is smaller than 20, K is its size.

    Args:
        logits: (n, V).
        alpha: exponent.
    """
    count = min(TOP_K, logits.shape[-1])
    logp = logits.topk(count, dim=-1).values.log_softmax(dim=-1)
    entropy = -(logp.exp() * logp).sum(dim=-1)
    return (entropy / math.log(max(count, 2))).clamp(0, 1) ** alpha


class SupervisedObjective(Objective):
    """Sum of -log p(token) over trained tokens, in nats.

    DFT weighs each token by the probability that the model gives it, EAFT by how unsure the model is there, ASFT
    (arXiv 2509.23753) adds to DFT `asft_alpha` times the KL from the model to the reference.
    """

    example_kind = "conversation"

    def __init__(self, token_loss: TokenLoss | None = None) -> None:
        self.token_loss = token_loss or TokenLoss()
        self.reference = "scored" if self.token_loss.kind == "asft" else "none"

    @classmethod
    def build(cls, config: RunConfig) -> Self:
        """With `use_dft_loss`, `use_asft_loss`, `use_eaft_loss` and `label_smoothing_factor`."""
        kinds = {"dft": config.use_dft_loss, "asft": config.use_asft_loss, "eaft": config.use_eaft_loss}
        kind = next((name for name, is_on in kinds.items() if is_on), "plain")
        return cls(TokenLoss(kind, config.asft_alpha, config.eaft_alpha, config.label_smoothing_factor))

    def _weigh(self, logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        if self.token_loss.kind == "eaft":
            return top_entropy(logits, self.token_loss.eaft_alpha)
        return own_probability(logits, targets)

    def loss(self, scored: Scored) -> LossOutput:
        """See `Objective.loss`; `accuracy` is the share of trained tokens that arg-max gets right."""
        settings = self.token_loss
        loss_sum, correct = cross_entropy_sum(
            scored.hidden,
            scored.head,
            scored.targets,
            scored.weights,
            weigh=None if settings.kind == "plain" else self._weigh,
            label_smoothing=settings.label_smoothing,
        )
        metrics: Metrics = {"accuracy": (correct, len(scored.targets))}
        if settings.kind == "asft":
            kl = self._kl(scored)
            loss_sum = loss_sum + settings.asft_alpha * (kl if scored.weights is None else kl * scored.weights).sum()
            metrics["kl"] = (kl.detach().sum(), len(kl))
        return LossOutput(loss_sum, metrics)

    def _kl(self, scored: Scored) -> torch.Tensor:
        if scored.reference is None:
            raise AssertionError("ASFT needs a reference model")
        return per_token_kl(scored.hidden, scored.head, scored.reference.hidden, scored.reference.head)
