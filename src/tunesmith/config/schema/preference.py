"""Keys of preference training and reinforcement learning."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from tunesmith.config.schema.key import Group, key

_REFERENCE = "another reference model"


@dataclass(frozen=True, init=False, repr=False, eq=False)
class Preference(Group):
    """DPO and its kin, KTO."""

    TITLE: ClassVar[str] = "preference training"

    pref_beta: float = key(0.1, "Strength of the pull to the reference model.", gt=0)
    pref_ftx: float = key(0.0, "Weight of the usual loss on the chosen answer.", ge=0)
    pref_bco_weight: float = key(0.0, "Weight of the BCO loss.", ge=0, not_yet="the BCO loss")
    pref_loss: str = key(
        "sigmoid",
        "Preference loss.",
        choices=("sigmoid", "hinge", "ipo", "kto_pair", "orpo", "simpo"),
        not_yet_values={"orpo": "the ORPO loss", "simpo": "the SimPO loss"},
    )
    dpo_label_smoothing: float = key(0.0, "Share of pairs taken to be marked wrongly (cDPO).", ge=0, le=0.5)
    ld_alpha: float | None = key(None, "Weight of tokens beyond the shorter answer's length (LD-DPO).", ge=0, le=1)
    simpo_gamma: float = key(0.5, "Margin of SimPO.", ge=0, not_yet="the SimPO loss")
    kto_chosen_weight: float = key(1.0, "Weight of good answers in KTO.", ge=0, not_yet="KTO")
    kto_rejected_weight: float = key(1.0, "Weight of bad answers in KTO.", ge=0, not_yet="KTO")
    ref_model: str | None = key(None, "Reference model; default: the base model.", not_yet=_REFERENCE)
    ref_model_adapters: str | None = key(None, "Adapters of the reference model.", not_yet=_REFERENCE)
    ref_model_quantization_bit: int | None = key(
        None, "Bits per weight of the reference model.", ge=4, le=8, not_yet=_REFERENCE
    )


@dataclass(frozen=True, init=False, repr=False, eq=False)
class Reinforcement(Group):
    """PPO."""

    TITLE: ClassVar[str] = "reinforcement learning"
    NOT_YET: ClassVar[str] = "reinforcement learning"

    reward_model: str | None = key(None, "Model or address that scores answers.")
    reward_model_adapters: str | None = key(None, "Adapters of the reward model.")
    reward_model_quantization_bit: int | None = key(None, "Bits per weight of the reward model.", ge=4, le=8)
    reward_model_type: str = key("lora", "What the reward model is.", choices=("lora", "full", "api"))
    ppo_buffer_size: int = key(1, "Batches of answers made before training on them.", ge=1)
    ppo_epochs: int = key(4, "Times each batch of answers is trained on.", ge=1)
    ppo_score_norm: bool = key(False, "Normalise scores.")
    ppo_target: float = key(6.0, "KL divergence that the penalty aims at, in nats.", gt=0)
    ppo_whiten_rewards: bool = key(False, "Normalise rewards before advantages are computed.")
