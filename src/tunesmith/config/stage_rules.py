"""What must hold between the stage and the keys that belong to some stages only. Opens no file."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from tunesmith.config.fault import Fault
from tunesmith.config.schema import KEYS, RunConfig

REFERENCE_FREE = ("orpo", "simpo")
"""Preference losses without a reference model."""
_STAGES_OF_KEY: dict[str, tuple[str, ...]] = {
    "predict_with_generate": ("sft",),
    "neat_packing": ("sft",),
    "train_on_prompt": ("sft",),
    "mask_history": ("sft",),
    "packing": ("pt", "sft"),
    "compute_accuracy": ("pt", "sft"),
    "label_smoothing_factor": ("pt", "sft"),
    "use_dft_loss": ("sft",),
    "use_asft_loss": ("sft",),
    "asft_alpha": ("sft",),
    "use_eaft_loss": ("sft",),
    "eaft_alpha": ("sft",),
    "pref_beta": ("dpo", "kto"),
    "pref_ftx": ("dpo", "kto"),
    "pref_loss": ("dpo",),
    "pref_bco_weight": ("dpo",),
    "dpo_label_smoothing": ("dpo",),
    "ld_alpha": ("dpo",),
    "simpo_gamma": ("dpo",),
    "kto_chosen_weight": ("kto",),
    "kto_rejected_weight": ("kto",),
    **{name: ("ppo",) for name in KEYS if name.startswith("ppo_")},
    **{name: ("grpo",) for name in KEYS if name.startswith(("grpo_", "num_generations"))},
    **{name: ("ppo", "grpo") for name in KEYS if name.startswith(("reward_model_", "reward_weights"))},
}
_LOSSES_OF_KEY: dict[str, tuple[str, ...]] = {
    "dpo_label_smoothing": ("sigmoid",),
    "simpo_gamma": ("simpo",),
    "ld_alpha": ("sigmoid", "hinge", "ipo", "kto_pair"),
    "pref_bco_weight": ("sigmoid", "hinge", "ipo", "kto_pair"),
}
_TOKEN_LOSSES = ("use_dft_loss", "use_asft_loss", "use_eaft_loss")
_REFERENCE_KEYS = ("ref_model", "ref_model_adapters", "ref_model_quantization_bit")


def _is_set(config: RunConfig, name: str) -> bool:
    """Whether a key asks for something; the default, false and null ask for nothing."""
    value = getattr(config, name)
    return value != KEYS[name].default and value is not False


def _listed(names: tuple[str, ...]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} or {names[-1]}"


def stage_has_key(config: RunConfig) -> Iterator[Fault]:
    """Keys that a stage does not use."""
    for name, stages in _STAGES_OF_KEY.items():
        if config.stage not in stages and _is_set(config, name):
            yield Fault((name, "stage"), f"{name} is for stage {_listed(stages)}, not {config.stage}")


def loss_has_key(config: RunConfig) -> Iterator[Fault]:
    """Keys that a preference loss does not use."""
    if config.stage != "dpo":
        return
    for name, losses in _LOSSES_OF_KEY.items():
        if config.pref_loss not in losses and _is_set(config, name):
            yield Fault((name, "pref_loss"), f"{name} is for pref_loss {_listed(losses)}, not {config.pref_loss}")


def one_token_loss(config: RunConfig) -> Iterator[Fault]:
    """DFT, ASFT and EAFT exclude each other, and their settings need them."""
    chosen = tuple(name for name in _TOKEN_LOSSES if getattr(config, name))
    if len(chosen) > 1:
        yield Fault(chosen, f"{' and '.join(chosen)} exclude each other", "keep one")
    for name, owner in (("asft_alpha", "use_asft_loss"), ("eaft_alpha", "use_eaft_loss")):
        if _is_set(config, name) and not getattr(config, owner):
            yield Fault((name, owner), f"{name} does nothing without {owner}", f"set {owner}: true")


def uses_reference(config: RunConfig) -> bool:
    """Whether the loss compares with a reference model."""
    if config.stage == "dpo":
        return config.pref_loss not in REFERENCE_FREE
    return config.stage in ("kto", "ppo", "grpo") or (config.stage == "sft" and config.use_asft_loss)


def reference_is_asked(config: RunConfig) -> Iterator[Fault]:
    """A reference model that no loss asks would cost memory for nothing."""
    if uses_reference(config):
        return
    what = f"pref_loss {config.pref_loss}" if config.stage == "dpo" else f"stage {config.stage}"
    for name in _REFERENCE_KEYS:
        if _is_set(config, name):
            yield Fault((name, "stage"), f"{name}: {what} has no reference model", f"leave {name} out")


def reference_can_be_asked(config: RunConfig) -> Iterator[Fault]:
    """Where all weights move, the reference is the model before the first step: its rows must be known then."""
    is_gone = config.finetuning_type in ("full", "freeze") and not any(
        _is_set(config, name) for name in _REFERENCE_KEYS
    )
    if config.stage in ("dpo", "kto") and uses_reference(config) and is_gone and config.streaming:
        what = f"streaming with finetuning_type {config.finetuning_type}: the reference must see all rows before step 1"
        fix = "set ref_model to the same model (a second copy in memory), or finetuning_type: lora, or drop streaming"
        yield Fault(("streaming", "finetuning_type", "ref_model"), what, fix)
    if config.stage == "sft" and config.use_asft_loss and config.train_from_scratch and not config.ref_model:
        what = "use_asft_loss holds the run near a trained model, but train_from_scratch starts from none"
        yield Fault(("use_asft_loss", "train_from_scratch"), what, "name a ref_model, or leave one of them out")


def prediction_fits_stage(config: RunConfig) -> Iterator[Fault]:
    """Answers are predicted by sft, scores by rm."""
    if not config.do_predict:
        return
    if config.stage not in ("sft", "rm"):
        what = f"do_predict is for stage sft (answers) and rm (scores), not {config.stage}"
        yield Fault(("do_predict", "stage"), what, "predict with stage: sft and the trained weights")
    elif config.stage == "sft" and not config.predict_with_generate:
        keys = ("do_predict", "predict_with_generate")
        yield Fault(keys, "do_predict needs predict_with_generate", "set predict_with_generate: true")


_TRAIN = ("train",)
RULES: tuple[tuple[tuple[str, ...], Callable[[RunConfig], Iterator[Fault]]], ...] = (
    (_TRAIN, stage_has_key),
    (_TRAIN, loss_has_key),
    (_TRAIN, one_token_loss),
    (_TRAIN, reference_is_asked),
    (_TRAIN, reference_can_be_asked),
    (_TRAIN, prediction_fits_stage),
)
"""The commands that a rule is for, and the rule."""
