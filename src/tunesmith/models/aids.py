"""What a run adds to the forward passes of training, and only there: noise, shifted groups, balance of experts."""

from __future__ import annotations

from dataclasses import dataclass

from tunesmith.config.schema import RunConfig

S2_GROUPS = 4
"""A group of shifted sparse attention is a quarter of the longest row, as in the LongLoRA paper."""


@dataclass(frozen=True, slots=True)
class Aids:
    """Additions to a training forward pass; by default none.

    Attributes:
        noise_alpha: strength of NEFTune's noise on the embeddings.
        group_tokens: tokens of a group of shifted sparse attention.
        balance: weight of the load-balancing loss of routed experts.
    """

    noise_alpha: float | None = None
    group_tokens: int | None = None
    balance: float | None = None

    @classmethod
    def of(cls, config: RunConfig) -> Aids:
        """What `neftune_noise_alpha`, `shift_attn` and `moe_aux_loss_coef` ask for."""
        group = max(2, config.cutoff_len // S2_GROUPS) if config.shift_attn else None
        return cls(config.neftune_noise_alpha, group, config.moe_aux_loss_coef or None)
