"""Training some layers as they are: the last or first ones, or the blocks that `tunesmith expand` added (LLaMA Pro)."""

from __future__ import annotations

from collections.abc import Collection

from torch import nn

from tunesmith.config.schema import RunConfig
from tunesmith.core.errors import ModelError
from tunesmith.models.targets import check_names, layers_of

EXPANDED = "expanded_blocks"
"""Field of config.json in which `tunesmith expand` notes the numbers of the blocks it added."""


def freeze(model: nn.Module, config: RunConfig) -> None:
    """Leaves only the chosen modules of the chosen layers, and `freeze_extra_modules`, trainable.

    Raises:
        ModelError: a count or a name does not fit this model.
    """
    prefix, layers = layers_of(model)
    chosen = expanded_blocks(model, config, len(layers)) if config.use_llama_pro else _ends(config, len(layers))
    wanted = config.freeze_trainable_modules
    inner = {name for name, _ in layers[0].named_modules() if name} | {name for name, _ in layers[0].named_parameters()}
    inner |= {part for name in inner for part in name.split(".")}
    for name in () if "all" in wanted else wanted:
        if name not in inner:
            raise ModelError(f"freeze_trainable_modules: no module {name!r} in a layer; there are {sorted(inner)}")
    extra = check_names(config.freeze_extra_modules, "freeze_extra_modules", model)
    model.requires_grad_(False)
    for name, parameter in model.named_parameters():
        parts = name.split(".")
        is_inside = name.startswith(f"{prefix}.")
        is_chosen = is_inside and any(name.startswith(f"{prefix}.{index}.") for index in chosen)
        in_layer = is_chosen and ("all" in wanted or any(part in wanted for part in parts))
        is_extra = not is_inside and any(part in extra for part in parts)
        parameter.requires_grad_(in_layer or is_extra)


def _ends(config: RunConfig, n_layers: int) -> Collection[int]:
    """The last n layers, or with a negative count the first."""
    count = config.freeze_trainable_layers
    if count == 0 or abs(count) > n_layers:
        raise ModelError(f"freeze_trainable_layers: {count} is not within 1..{n_layers} (or -{n_layers}..-1)")
    return range(n_layers - count, n_layers) if count > 0 else range(-count)


def expanded_blocks(model: nn.Module, config: RunConfig, n_layers: int) -> list[int]:
    """Numbers of the blocks that were added to the model: LLaMA Pro (arXiv 2401.02415) trains nothing else.

    Models that `tunesmith expand` wrote say it themselves. Others are taken to be expanded evenly into as many blocks
    as `freeze_trainable_layers` says: the last block of each of that many groups.

    Raises:
        ModelError: the model says otherwise, or its layers do not fall into that many groups.
    """
    count = config.freeze_trainable_layers
    known = getattr(model.config.get_text_config(), EXPANDED, None)
    if known:
        if config.asks_for("freeze_trainable_layers") and count != len(known):
            raise ModelError(
                f"freeze_trainable_layers: {count}, but this model was expanded by {len(known)} blocks; "
                "drop the key, use_llama_pro knows them"
            )
        return [int(number) for number in known]
    if count < 1 or n_layers % count or n_layers == count:
        raise ModelError(
            f"use_llama_pro: {n_layers} layers do not fall into {count} groups of equal length with one added block "
            "each; set freeze_trainable_layers to the number of added blocks, or expand the model: tunesmith expand"
        )
    stride = n_layers // count
    return list(range(stride - 1, n_layers, stride))
