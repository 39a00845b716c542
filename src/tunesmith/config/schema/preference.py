"""Keys of preference training."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from tunesmith.config.schema.key import EVAL, TRAIN, Group, key


@dataclass(frozen=True, init=False, repr=False, eq=False)
class Preference(Group):
    """DPO and its kin, KTO."""

    TITLE: ClassVar[str] = "preference training"

    pref_beta: float = key(0.1, "Strength of the pull to the reference model.", gt=0)
    pref_ftx: float = key(0.0, "Weight of the usual loss on the chosen answer.", ge=0)
    pref_bco_weight: float = key(0.0, "Weight of the BCO loss beside the preference loss (MPO).", ge=0)
    pref_loss: str = key(
        "sigmoid",
        "Preference loss.",
        choices=("sigmoid", "hinge", "ipo", "kto_pair", "orpo", "simpo"),
    )
    dpo_label_smoothing: float = key(0.0, "Share of pairs taken to be marked wrongly (cDPO).", ge=0, le=0.5)
    ld_alpha: float | None = key(None, "Weight of tokens beyond the shorter answer's length (LD-DPO).", ge=0, le=1)
    simpo_gamma: float = key(0.5, "Margin of SimPO.", ge=0)
    kto_chosen_weight: float = key(1.0, "Weight of good answers in KTO.", ge=0)
    kto_rejected_weight: float = key(1.0, "Weight of bad answers in KTO.", ge=0)
    ref_model: str | None = key(
        None,
        "Reference model; default: the model that training starts from.",
        note="With `forgetting` it is the model before tuning.",
        commands=(*TRAIN, *EVAL),
    )
    ref_model_adapters: tuple[str, ...] = key(
        (), "Adapters merged into the reference model, or without one into the base."
    )
    ref_model_quantization_bit: int | None = key(
        None, "Bits per weight of the reference model: 4 or 8, made by quantization_method.", ge=4, le=8
    )
