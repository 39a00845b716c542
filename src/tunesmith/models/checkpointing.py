"""Gradient checkpointing: activations are computed a second time in the backward pass, so that they need not be kept.

What is kept is the input of each layer; with offload (as unsloth's does) in the memory of the CPU.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.autograd.graph import save_on_cpu
from torch.utils.checkpoint import checkpoint

from tunesmith.config.schema import RunConfig
from tunesmith.core.errors import ModelError

_SETTINGS = ("use_reentrant", "preserve_rng_state", "determinism_check")


def wants_checkpointing(config: RunConfig) -> bool:
    """Whether the configuration asks for it; memory may turn it on as well."""
    return config.gradient_checkpointing or config.use_unsloth_gc


def enable_checkpointing(model: Any, config: RunConfig) -> None:
    """Turns it on; inputs get gradients, so that frozen embeddings cut no graph.

    Args:
        model: the transformers model.
        config: `use_unsloth_gc` keeps inputs of layers in CPU memory; `gradient_checkpointing_kwargs` go to torch.
            The gradients are the same in all kinds.

    Raises:
        ModelError: a setting that torch does not know, or a model that cannot.
    """
    settings = {"use_reentrant": False} | (config.gradient_checkpointing_kwargs or {})
    unknown = sorted(set(settings) - set(_SETTINGS))
    if unknown:
        raise ModelError(f"gradient_checkpointing_kwargs: {unknown[0]} is not one of {', '.join(_SETTINGS)}")
    if not model.supports_gradient_checkpointing:
        raise ModelError(f"gradient_checkpointing: {type(model).__name__} does not support it; drop the key")
    model._set_gradient_checkpointing(True, _function(config.use_unsloth_gc, settings))
    model.enable_input_require_grads()


def _function(offload: bool, settings: dict[str, Any]) -> Callable[..., Any]:
    """What transformers calls with a layer and its input."""

    def run(layer: Callable[..., Any], *inputs: Any) -> Any:
        if not offload:
            return checkpoint(layer, *inputs, **settings)
        # Inputs of layers alone are saved under these hooks; what layers compute inside is not saved at all.
        with save_on_cpu(pin_memory=torch.accelerator.is_available()):
            return checkpoint(layer, *inputs, **settings)

    return run


def upcast_norms(model: nn.Module) -> int:
    """Holds and computes norm layers in float32 in a model of fewer bits (`upcast_layernorm`).

    Returns:
        How many layers changed.
    """
    count = 0
    for module in model.modules():
        own = [parameter for parameter in module.parameters(recurse=False) if parameter.dtype != torch.float32]
        if own and type(module).__name__.lower().endswith(("norm", "layernorm", "rmsnorm")):
            module.float()
            module.register_forward_pre_hook(_to_float32)
            module.register_forward_hook(_back)
            count += 1
    return count


def _to_float32(module: Any, inputs: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
    module.came_as = inputs[0].dtype
    return (inputs[0].float(), *inputs[1:])


def _back(module: Any, _: Any, output: torch.Tensor) -> torch.Tensor:
    return output.to(module.came_as)
