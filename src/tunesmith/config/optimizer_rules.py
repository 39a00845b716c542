"""Which optimizer the keys ask for, and what must hold between those keys."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from tunesmith.config.fault import Fault
from tunesmith.config.schema import KEYS, RunConfig
from tunesmith.core import env

SWITCHES = {
    "use_galore": "galore",
    "use_apollo": "apollo",
    "use_badam": "badam",
    "use_adam_mini": "adam_mini",
    "use_muon": "muon",
}
"""Key -> family."""
_ADAMW = ("adamw_torch", "adamw_torch_fused")
_PARTNERS = {"use_galore": (*_ADAMW, "adamw_8bit", "adamw_bnb_8bit", "adafactor")}
"""Key -> values of `optim` that it goes with; others go with AdamW of torch."""
_NOT_WITH_LORA = ("use_galore", "use_apollo", "use_badam")

_MODE_OF_DETAIL = {
    "badam_start_block": "layer",
    "badam_switch_mode": "layer",
    "badam_update_ratio": "ratio",
    "badam_mask_mode": "ratio",
}

_ADEMAMIX = ("beta1", "beta2", "beta3", "alpha", "eps", "t_alpha", "t_beta3")
_GALORE = ("rank", "update_proj_gap", "scale", "proj_type")
_GROK = ("alpha_init", "lamb", "gamma", "grokking_signal_decay_rate", "gradient_clipping")
_PRECISIONS = ("use_kahan_summation", "momentum_dtype", "variance_dtype", "compensation_buffer_dtype")
SETTINGS = {
    "sgd": ("momentum", "dampening", "weight_decay", "nesterov"),
    "adagrad": ("lr_decay", "weight_decay", "eps"),
    "rmsprop": ("momentum", "alpha", "eps", "weight_decay", "centered"),
    "ademamix": _ADEMAMIX,
    "paged_ademamix": _ADEMAMIX,
    "grokadamw": _GROK,
    "stable_adamw": ("max_lr",),
    "adamw_anyprecision": _PRECISIONS,
    "adamw_torch_4bit": ("bf16_stochastic_round",),
    "adamw_torch_8bit": ("bf16_stochastic_round",),
    "schedule_free": ("r", "weight_lr_power"),
    "galore": _GALORE,
    "apollo": (*_GALORE, "proj", "scale_type"),
}
"""Value of `optim` -> what `optim_args` may set; the longest beginning counts."""


def settings_of(optim: str) -> tuple[str, ...]:
    """Names that `optim_args` may have."""
    if optim.startswith("rmsprop_"):
        return ()  # transformers hands texts on where this one wants numbers
    fitting = [start for start in SETTINGS if optim.startswith(start)]
    return SETTINGS[max(fitting, key=len)] if fitting else ()


def optim_settings(config: RunConfig) -> dict[str, str]:
    """`optim_args` as names and texts; parts without = have an empty text."""
    parts = [part.partition("=") for part in (config.optim_args or "").replace(" ", "").split(",") if part]
    return {name: value for name, _, value in parts}


def optimizer_family(config: RunConfig) -> str:
    """The name in the table of optimizers; `native` for those that transformers makes."""
    for name, family in SWITCHES.items():
        if getattr(config, name):
            return family
    for prefix in ("galore", "apollo", "schedule_free"):
        if config.optim.startswith(prefix):
            return prefix
    return config.optim if config.optim in ("lomo", "adalomo") else "native"


def updates_in_backward(config: RunConfig) -> bool:
    """Whether weights change while the backward pass runs, each as soon as its gradient is there."""
    layerwise = (config.use_galore and config.galore_layerwise) or (config.use_apollo and config.apollo_layerwise)
    return layerwise or config.optim.endswith("_layerwise") or optimizer_family(config) in ("lomo", "adalomo")


def _asker(config: RunConfig) -> str:
    """The key that chose the optimizer."""
    return next((name for name in SWITCHES if getattr(config, name)), "optim")


def one_optimizer(config: RunConfig) -> Iterator[Fault]:
    """Only one of the switches, and an `optim` that goes with it."""
    on = [name for name in SWITCHES if getattr(config, name)]
    if len(on) > 1:
        yield Fault(tuple(on), f"{' and '.join(on)} exclude each other", "keep one")
    elif on and config.optim not in (partners := _PARTNERS.get(on[0], _ADAMW)):
        what = f"{on[0]} goes with optim {', '.join(partners)}, not {config.optim}"
        yield Fault(("optim", on[0]), what, "leave optim out")


def full_weights_only(config: RunConfig) -> Iterator[Fault]:
    """What saves memory on whole matrices has nothing to save on LoRA's small ones."""
    if config.finetuning_type in ("full", "freeze"):
        return
    family = optimizer_family(config)
    if family in ("galore", "apollo", "badam"):
        asker = _asker(config)
        name = asker if asker != "optim" else f"optim: {config.optim}"
        what = f"{name} is for finetuning_type full or freeze, not {config.finetuning_type}"
        yield Fault((asker, "finetuning_type"), what, "the optimizer states of an adapter are small already")


def one_process(config: RunConfig) -> Iterator[Fault]:
    """What acts on gradients as they appear does not see those of other processes."""
    if env.world_size() == 1:
        return
    if updates_in_backward(config) or config.use_badam:
        what = "an optimizer that updates during the backward pass, or that trains a part at a time, works in one "
        what += f"process, not in {env.world_size()}"
        yield Fault((_asker(config), "galore_layerwise", "apollo_layerwise"), what, "drop it, or start one process")


def sharded_weights(config: RunConfig) -> Iterator[Fault]:
    """A projection needs whole matrices."""
    if config.deepspeed and optimizer_family(config) in ("galore", "apollo"):
        asker = _asker(config)
        yield Fault(("deepspeed", asker), f"deepspeed and {asker} exclude each other: it needs whole matrices")


def norm_needs_all_gradients(config: RunConfig) -> Iterator[Fault]:
    """A gradient that is used up at once cannot be shortened by the norm of all; the default is taken as 0."""
    if updates_in_backward(config) and config.max_grad_norm not in (0, KEYS["max_grad_norm"].default):
        what = "max_grad_norm needs all gradients at once, but this optimizer uses each one up as soon as it is there"
        yield Fault(("max_grad_norm", _asker(config)), what, "set max_grad_norm: 0")


def no_schedule(config: RunConfig) -> Iterator[Fault]:
    """Schedule-free averaging stands in for a falling learning rate; the default is taken as a constant one."""
    courses = ("constant", "constant_with_warmup", KEYS["lr_scheduler_type"].default)
    if optimizer_family(config) == "schedule_free" and config.lr_scheduler_type not in courses:
        what = f"{config.optim} needs no course of the learning rate; lr_scheduler_type {config.lr_scheduler_type} "
        what += "would weigh its average wrongly"
        yield Fault(("lr_scheduler_type", "optim"), what, "leave lr_scheduler_type out, or set it to constant")


def targets_have_an_optimizer(config: RunConfig) -> Iterator[Fault]:
    """`optim_target_modules` belongs to `optim: galore_*` and `apollo_*`, which cannot do without."""
    low_rank = config.optim.startswith(("galore", "apollo"))
    if low_rank and not config.optim_target_modules:
        what = f"optim: {config.optim} needs optim_target_modules"
        yield Fault(("optim", "optim_target_modules"), what, "set optim_target_modules: all-linear")
    if config.optim_target_modules and not low_rank:
        what = f"optim_target_modules is for optim galore_* and apollo_*, not {config.optim}"
        fix = "with use_galore or use_apollo the key is galore_target or apollo_target"
        yield Fault(("optim_target_modules", "optim"), what, fix)


def settings_are_known(config: RunConfig) -> Iterator[Fault]:
    """`optim_args` that an optimizer does not know would do nothing."""
    known = settings_of(config.optim) if not any(getattr(config, name) for name in SWITCHES) else ()
    for name, value in optim_settings(config).items():
        if name not in known:
            fix = f"it knows {', '.join(known)}" if known else "it has keys of its own, or none"
            yield Fault(("optim_args", _asker(config)), f"optim_args: this optimizer has no setting {name}", fix)
        elif not value:
            yield Fault(("optim_args",), f"optim_args: {name} has no value", f"write {name}=VALUE")


def details_have_their_switch(config: RunConfig) -> Iterator[Fault]:
    """Settings of an optimizer that is not used, or of its other mode, would do nothing."""
    for switch in ("use_galore", "use_apollo", "use_badam"):
        prefix = f"{SWITCHES[switch]}_"
        for name in (name for name in KEYS if name.startswith(prefix) and config.asks_for(name)):
            if not getattr(config, switch):
                yield Fault((name, switch), f"{name} does nothing without {switch}", f"set {switch}: true")
    for name, mode in _MODE_OF_DETAIL.items():
        if config.use_badam and config.badam_mode != mode and config.asks_for(name):
            what = f"{name} is for badam_mode {mode}, not {config.badam_mode}"
            yield Fault((name, "badam_mode"), what, "leave it out")


def blocks_are_known(config: RunConfig) -> Iterator[Fault]:
    """BAdam that never goes on has to be told where it stays."""
    if not config.use_badam:
        return
    if config.badam_mode == "layer" and config.badam_switch_mode == "fixed" and config.badam_start_block is None:
        what = "badam_switch_mode: fixed needs badam_start_block"
        yield Fault(("badam_switch_mode", "badam_start_block"), what, "name the layer to train")
    if config.badam_switch_interval == 0:
        yield Fault(("badam_switch_interval",), "badam_switch_interval: 0 is no number of steps", "-1 never goes on")


def channels_need_the_short_side(config: RunConfig) -> Iterator[Fault]:
    """APOLLO takes a channel's norm along the shorter side of a matrix, where only `std` leaves it whole."""
    if optimizer_family(config) != "apollo":
        return
    told = optim_settings(config)
    side = config.apollo_proj_type if config.use_apollo else told.get("proj_type", "std")
    scale = config.apollo_scale_type if config.use_apollo else told.get("scale_type", "channel")
    if side != "std" and scale == "channel":
        keys = ("apollo_proj_type", "apollo_scale_type") if config.use_apollo else ("optim_args",)
        what = f"APOLLO's projection {side} goes with a factor for the whole matrix, not for each channel"
        yield Fault(keys, what, "set apollo_scale_type: tensor (in optim_args scale_type=tensor), or keep std")


_TRAIN = ("train",)
RULES: tuple[tuple[tuple[str, ...], Callable[[RunConfig], Iterator[Fault]]], ...] = (
    (_TRAIN, one_optimizer),
    (_TRAIN, full_weights_only),
    (_TRAIN, one_process),
    (_TRAIN, sharded_weights),
    (_TRAIN, norm_needs_all_gradients),
    (_TRAIN, no_schedule),
    (_TRAIN, targets_have_an_optimizer),
    (_TRAIN, settings_are_known),
    (_TRAIN, details_have_their_switch),
    (_TRAIN, blocks_are_known),
    (_TRAIN, channels_need_the_short_side),
)
"""The commands that a rule is for, and the rule."""
