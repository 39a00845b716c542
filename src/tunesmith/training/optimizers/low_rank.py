"""GaLore (arXiv 2403.03507) and APOLLO (arXiv 2412.05270): Adam's moments in a small space of a matrix's gradient.

The arithmetic is that of galore-torch and apollo-torch. Added here: which matrices, states that a checkpoint can hold,
projections that do not keep the whole decomposition in memory, and layerwise updates over several micro-batches.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from tunesmith.config.optimizer_rules import optim_settings, optimizer_family
from tunesmith.core.errors import TrainingError
from tunesmith.core.lazy import nearest
from tunesmith.core.log import get_logger
from tunesmith.core.optional import require
from tunesmith.models.targets import linear_names
from tunesmith.training.optimizers.in_backward import UpdateInBackward
from tunesmith.training.optimizers.several import Group, trained_groups

if TYPE_CHECKING:
    from tunesmith.config.schema import RunConfig

logger = get_logger(__name__)

_ALL = ("all", "all-linear", "all_linear")


@dataclass(frozen=True, slots=True)
class LowRankPlan:
    """What a low-rank optimizer does.

    Attributes:
        base: adamw, adamw_8bit or adafactor.
        target: modules it works on.
        group: settings of their weights, under the packages' names.
        layerwise: update during the backward pass.
        options: settings of the optimizer as a whole.
    """

    base: str
    target: tuple[str, ...]
    group: dict[str, Any]
    layerwise: bool
    options: dict[str, Any]


def _from_optim(config: RunConfig, defaults: dict[str, Any]) -> LowRankPlan:
    """The plan of `optim: galore_*` or `apollo_*`, with transformers' defaults."""
    told = optim_settings(config)
    try:
        group = {name: type(value)(told.get(name, value)) for name, value in defaults.items()}
    except ValueError as error:
        raise TrainingError(f"optim_args: {config.optim_args}: {error}") from error
    name = config.optim.removesuffix("_layerwise")
    base = name.split("_", 1)[1]
    return LowRankPlan(base, config.optim_target_modules, group, config.optim != name, {})


def _galore_plan(config: RunConfig) -> LowRankPlan:
    if not config.use_galore:
        return _from_optim(config, {"rank": 128, "update_proj_gap": 200, "scale": 0.25, "proj_type": "std"})
    base = "adafactor" if config.optim == "adafactor" else "adamw_8bit" if "8bit" in config.optim else "adamw"
    group = {
        "rank": config.galore_rank,
        "update_proj_gap": config.galore_update_interval,
        "scale": config.galore_scale,
        "proj_type": config.galore_proj_type,
    }
    return LowRankPlan(base, config.galore_target, group, config.galore_layerwise, {})


def _apollo_plan(config: RunConfig) -> LowRankPlan:
    if not config.use_apollo:
        names = {"rank": 128, "proj": "random", "scale_type": "channel"}
        return _from_optim(config, {**names, "update_proj_gap": 200, "scale": 1.0, "proj_type": "std"})
    group = {
        "rank": config.apollo_rank,
        "proj": config.apollo_proj,
        "scale_type": config.apollo_scale_type,
        "update_proj_gap": config.apollo_update_interval,
        "scale": config.apollo_scale,
        "proj_type": config.apollo_proj_type,
    }
    options = {"scale_front": config.apollo_scale_front}
    return LowRankPlan("adamw", config.apollo_target, group, config.apollo_layerwise, options)


def plan_of(config: RunConfig) -> LowRankPlan:
    """What a configuration of GaLore or APOLLO asks for.

    Raises:
        TrainingError: `optim_args` holds no numbers.
    """
    return _galore_plan(config) if optimizer_family(config) == "galore" else _apollo_plan(config)


def galore(config: RunConfig, trainer: Any) -> torch.optim.Optimizer:
    """GaLore: moments of the gradient's projection onto its own main directions.

    Raises:
        MissingPackageError: galore-torch is not installed.
        TrainingError: a target fits no matrix, or the 8-bit kind is asked for without a GPU.
    """
    package = require("galore_torch", "galore", "GaLore")
    plan = _galore_plan(config)
    kinds = {"adamw": "GaLoreAdamW", "adafactor": "GaLoreAdafactor", "adamw_8bit": "GaLoreAdamW8bit"}
    if plan.base == "adamw_8bit" and not torch.cuda.is_available():
        raise TrainingError("GaLore with 8-bit Adam waits for CUDA kernels at each step: it needs a GPU; drop optim")
    return _build(getattr(package, kinds[plan.base]), plan, trainer, "GaLore")


def apollo(config: RunConfig, trainer: Any) -> torch.optim.Optimizer:
    """APOLLO: the raw gradient, scaled by step sizes that Adam would take in a small random space.

    Raises:
        MissingPackageError: apollo-torch is not installed.
        TrainingError: a target fits no matrix.
    """
    package = require("apollo_torch", "apollo", "APOLLO")
    return _build(package.APOLLOAdamW, _apollo_plan(config), trainer, "APOLLO")


def _build(kind: Any, plan: LowRankPlan, trainer: Any, name: str) -> torch.optim.Optimizer:
    args = trainer.args
    targets = target_weights(trainer.model, plan.target)
    _check_rank(plan, targets)
    groups = _groups(trained_groups(trainer.model, trainer), targets, plan.group)
    options: dict[str, Any] = {"lr": args.learning_rate, **plan.options}
    if plan.base == "adafactor":
        options |= {"scale_parameter": False, "relative_step": False}
    else:
        options |= {"betas": (args.adam_beta1, args.adam_beta2), "eps": args.adam_epsilon}
    if plan.base == "adamw":
        options["no_deprecation_warning"] = True

    def make(parts: list[Group]) -> torch.optim.Optimizer:
        optimizer: torch.optim.Optimizer = kind(parts, **options)
        optimizer.register_step_post_hook(_let_go)
        optimizer.register_state_dict_post_hook(_pack)
        optimizer.register_load_state_dict_pre_hook(_unpack)
        return optimizer

    settings = plan.group
    logger.info("%s: rank %s on %d matrices, %s", name, settings["rank"], len(targets), plan.base)
    if not plan.layerwise:
        return make(groups)
    optimizer = UpdateInBackward(groups, make, f"{name}, layer by layer in the backward pass")
    for number, part in enumerate(optimizer.parts, 1):
        for state in part.state.values():
            state["seed"] = number  # of APOLLO's random space: as if all weights were in one optimizer
    return optimizer


def target_weights(model: nn.Module, wanted: Iterable[str]) -> set[int]:
    """Ids of the trained matrices that `galore_target` and its like name.

    Args:
        model: the model.
        wanted: `all` for every linear layer but the head; else parts of module names, or regular expressions for them.

    Raises:
        TrainingError: a name fits no linear layer.
    """
    leaves = set(linear_names(model))
    linear = {n: m for n, m in model.named_modules() if isinstance(m, nn.Linear) and n.rsplit(".", 1)[-1] in leaves}
    found: set[int] = set()
    for name in wanted:
        hits = [m for n, m in linear.items() if name in _ALL or name in n or re.fullmatch(name, n)]
        if not hits:
            guess = nearest(name, leaves)
            hint = f"; did you mean {guess!r}?" if guess else ""
            raise TrainingError(f"no linear layer is named {name!r}{hint} (there are {sorted(leaves)})")
        found |= {id(module.weight) for module in hits if module.weight.requires_grad}
    if not found:
        raise TrainingError("none of the named layers is trained: the optimizer would have nothing to do")
    return found


def _check_rank(plan: LowRankPlan, targets: set[int]) -> None:
    if plan.group["proj_type"] not in ("std", "reverse_std", "right", "left", "full"):
        raise TrainingError(f"optim_args: proj_type {plan.group['proj_type']} is none of std, reverse_std, right, left")
    if plan.group["rank"] < 1 or plan.group["update_proj_gap"] < 1:
        raise TrainingError("rank and update_proj_gap must be 1 or more")


def _groups(groups: list[Group], targets: set[int], settings: Group) -> list[Group]:
    """Each group cut in two: plain weights, and those that get a projection."""
    cut: list[Group] = []
    for group in groups:
        plain = [weight for weight in group["params"] if id(weight) not in targets]
        small = [weight for weight in group["params"] if id(weight) in targets]
        cut += [{**group, "params": plain}, {**group, "params": small, **settings}]
    return [group for group in cut if group["params"]]


def _projectors(optimizer: torch.optim.Optimizer) -> Iterable[Any]:
    return (state["projector"] for state in optimizer.state.values() if "projector" in state)


def _let_go(optimizer: torch.optim.Optimizer, *_: Any) -> None:
    """Cuts a projection out of the whole decomposition, which it would otherwise keep in memory."""
    for projector in _projectors(optimizer):
        matrix = projector.ortho_matrix
        if isinstance(matrix, torch.Tensor) and matrix.untyped_storage().nbytes() > matrix.nbytes:
            projector.ortho_matrix = matrix.clone(memory_format=torch.contiguous_format)
        elif isinstance(matrix, list) and any(part.untyped_storage().nbytes() > part.nbytes for part in matrix):
            projector.ortho_matrix = [part.clone(memory_format=torch.contiguous_format) for part in matrix]


def _pack(optimizer: torch.optim.Optimizer, state_dict: dict[str, Any]) -> dict[str, Any]:
    """Projections as plain values, which torch.load takes without running code."""
    state = {
        number: {name: dict(vars(value)) if name == "projector" else value for name, value in entry.items()}
        for number, entry in state_dict["state"].items()
    }
    return {**state_dict, "state": state}


def _unpack(optimizer: torch.optim.Optimizer, state_dict: dict[str, Any]) -> dict[str, Any]:
    """Projections out of plain values."""
    weights = [weight for group in optimizer.param_groups for weight in group["params"]]
    groups = [group for group in optimizer.param_groups for _ in group["params"]]
    state = {}
    for number, entry in state_dict["state"].items():
        entry = dict(entry)
        if isinstance(entry.get("projector"), dict):
            entry["projector"] = _restored(optimizer, groups[number], entry, weights[number].device)
        state[number] = entry
    return {**state_dict, "state": state}


def _restored(optimizer: Any, group: Group, entry: dict[str, Any], device: torch.device) -> Any:
    """A projector with the values that `_pack` wrote."""
    if hasattr(optimizer, "_initialize_projector"):
        projector = optimizer._initialize_projector(group, entry)
    else:
        kind = require("galore_torch.galore_projector", "galore").GaLoreProjector
        projector = kind(group["rank"], update_proj_gap=group["update_proj_gap"], proj_type=group["proj_type"])
    for name, value in entry["projector"].items():
        if isinstance(value, torch.Tensor):
            value = value.to(device)
        elif isinstance(value, list):
            value = [part.to(device) for part in value]
        setattr(projector, name, value)
    return projector
