"""Which modules a method works on: names of the configuration, or patterns, to modules of a model."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from torch import nn

from tunesmith.core.errors import ModelError
from tunesmith.core.lazy import nearest
from tunesmith.models.linear import linear_layers

_PATTERN_SIGNS = re.compile(r"[\\()\[\]{}*+?|^$]")
"""What no name of a module holds: text with one of these is a regular expression."""


@dataclass(frozen=True, slots=True)
class Targets:
    """What an adapter hangs on.

    Attributes:
        modules: endings of modules' names, as peft takes them; whole names where a pattern chose.
        parameters: endings of parameters' names: the weights of routed experts, which are no modules.
    """

    modules: list[str]
    parameters: list[str]


def linear_names(model: nn.Module) -> list[str]:
    """Leaf names of every linear layer but the output head: what `lora_target: all` means."""
    return sorted({name.rsplit(".", 1)[-1] for name in _linear(model)})


def _linear(model: nn.Module) -> list[str]:
    return list(linear_layers(model))


def expert_parameters(model: nn.Module) -> list[str]:
    """Full names of the weights of routed experts: parameters of three dimensions (experts, out, in)."""
    return [name for name, parameter in model.named_parameters() if parameter.dim() == 3 and ".experts." in f".{name}"]


def check_names(wanted: Iterable[str], key: str, model: nn.Module) -> list[str]:
    """Refuses names that match no module: an adapter that hangs nowhere trains nothing."""
    parts = {part for name, _ in model.named_modules() for part in (name, name.rsplit(".", 1)[-1]) if part}
    wanted = list(wanted)
    for name in wanted:
        if name not in parts and not any(part.endswith("." + name) for part in parts):
            raise _unknown(name, key, model, parts)
    return wanted


def _unknown(name: str, key: str, model: nn.Module, parts: Iterable[str]) -> ModelError:
    guess = nearest(name, parts)
    hint = f"; did you mean {guess!r}?" if guess else ""
    experts = sorted({".".join(full.split(".")[-2:]) for full in expert_parameters(model)})
    routed = f"; routed experts: {experts}" if experts else ""
    return ModelError(f"{key}: this model has no module named {name!r}{hint} (linear: {linear_names(model)}{routed})")


def find_targets(wanted: Sequence[str], key: str, model: nn.Module) -> Targets:
    """What `lora_target` or `oft_target` names in this model.

    Args:
        wanted: `all` (every linear layer but the head), ends of modules' names, regular expressions for whole names of
            linear layers, `experts` or ends of names of expert weights such as `experts.down_proj`.
        key: the configuration's key, for messages.
        model: the base model.

    Raises:
        ModelError: one of them matches nothing.
    """
    modules: list[str] = []
    parameters: list[str] = []
    for entry in wanted:
        experts = _experts_named(entry, model)
        if entry == "all":
            modules += linear_names(model)
        elif _PATTERN_SIGNS.search(entry):
            modules += _matching(entry, key, model)
        elif experts:
            parameters += experts
        else:
            modules += check_names([entry], key, model)
    return Targets(sorted(set(modules)), sorted(set(parameters)))


def module_names(targets: Targets, model: nn.Module) -> list[str]:
    """Whole names of the modules that targets mean."""
    return [name for name, _ in model.named_modules() if any(f".{name}".endswith(f".{t}") for t in targets.modules)]


def _experts_named(entry: str, model: nn.Module) -> list[str]:
    """Endings of the expert weights that a name means; a name of a linear layer means that layer."""
    found = [
        full for full in expert_parameters(model) if f".{full}".endswith(f".{entry}") or f".{entry}." in f".{full}"
    ]
    if entry != "experts" and any(f".{name}".endswith(f".{entry}") for name in _linear(model)):
        return []
    return [".".join(full.split(".")[-2:]) for full in found]


def _matching(pattern: str, key: str, model: nn.Module) -> list[str]:
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        raise ModelError(
            f"{key}: {pattern!r} is no regular expression ({error}); "
            "commas separate names, so write a pattern without commas"
        ) from error
    names = _linear(model)
    found = [name for name in names if compiled.fullmatch(name)]
    if not found:
        example = names[0] if names else "none"
        raise ModelError(
            f"{key}: the pattern {pattern!r} matches the whole name of no linear layer; such a name is {example!r}"
        )
    return found


def layers_of(model: nn.Module) -> tuple[str, nn.ModuleList]:
    """The list of decoder layers and its name: the longest ModuleList that is not inside another (experts are).

    Raises:
        ModelError: there is none.
    """
    lists = [(name, module) for name, module in model.named_modules() if isinstance(module, nn.ModuleList)]
    outer = [(name, module) for name, module in lists if not any(name.startswith(f"{other}.") for other, _ in lists)]
    if not outer:
        raise ModelError("this model has no list of layers; use finetuning_type: lora or full")
    return max(outer, key=lambda item: len(item[1]))
