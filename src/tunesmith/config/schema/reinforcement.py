"""Keys of reinforcement learning: where rewards come from, PPO, GRPO."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from tunesmith.config.schema.key import Group, key


@dataclass(frozen=True, init=False, repr=False, eq=False)
class Rewards(Group):
    """What answers are rewarded for."""

    TITLE: ClassVar[str] = "rewards"

    reward_model: str | None = key(
        None, "What scores answers: a trained reward adapter (lora), a model folder (full), or an address (api)."
    )
    reward_model_adapters: str | None = key(None, "Adapters of a reward model of type full.")
    reward_model_quantization_bit: int | None = key(
        None, "Bits per weight of a reward model of type full: 4 or 8.", ge=4, le=8
    )
    reward_model_type: str = key("lora", "What the reward model is.", choices=("lora", "full", "api"))
    reward_funcs: tuple[str, ...] = key(
        (),
        "Rewards by rule: json_valid, exact_match, length:TOKENS, regex:PATTERN, or FILE.py:FUNCTION.",
    )
    reward_weights: tuple[float, ...] = key((), "Factor on each of reward_funcs, then on reward_model; default: all 1.")


@dataclass(frozen=True, init=False, repr=False, eq=False)
class Proximal(Group):
    """Stage ppo."""

    TITLE: ClassVar[str] = "PPO"

    ppo_buffer_size: int = key(
        1, "Updates' worth of prompts that are answered together, before training on them.", ge=1
    )
    ppo_epochs: int = key(4, "Times that each batch of answers is trained on.", ge=1)
    ppo_score_norm: bool = key(False, "Normalise scores by mean and deviation of all scores so far.")
    ppo_target: float = key(6.0, "KL divergence of an answer that the penalty aims at, in nats.", gt=0)
    ppo_kl_weight: float = key(
        0.2, "Weight of the KL penalty at the start; it moves towards ppo_target. Small rewards need a small one.", ge=0
    )
    ppo_whiten_rewards: bool = key(False, "Normalise the rewards of tokens before advantages are computed.")


@dataclass(frozen=True, init=False, repr=False, eq=False)
class GroupRelative(Group):
    """Stage grpo."""

    TITLE: ClassVar[str] = "GRPO"

    num_generations: int = key(8, "Answers to each prompt, which are compared with each other.", ge=2)
    grpo_beta: float = key(0.04, "Weight of the KL divergence to the reference; 0 needs no reference.", ge=0)
    grpo_epochs: int = key(1, "Times that each batch of answers is trained on.", ge=1)
    grpo_clip: float = key(0.2, "How far a token's probability ratio may leave 1.", gt=0, lt=1)
    grpo_clip_high: float | None = key(
        None, "How far it may rise above 1; default: as grpo_clip. DAPO takes 0.28.", gt=0
    )
    grpo_loss: str = key(
        "grpo",
        "Average over an answer's tokens, then answers (grpo); all tokens (dapo); tokens by max_new_tokens (dr_grpo).",
        choices=("grpo", "dapo", "dr_grpo"),
    )
    grpo_scale_rewards: str = key(
        "group",
        "What differences of rewards are divided by: the deviation in the group, in the batch, or nothing (Dr. GRPO).",
        choices=("group", "batch", "none"),
    )
    grpo_mask_truncated: bool = key(False, "Leave answers that were cut at max_new_tokens out of the loss (DAPO).")
