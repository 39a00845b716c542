"""Base models held in fewer bits: which library does it, what is asked of it, and proof that it was done.

`quantization_bit` quantises while loading; a model that was quantised beforehand says so in its config.json
(quantizers/stored.py). Only adapters are trained on top of either; merging goes through the unquantised base.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from tunesmith.config.result import ADAPTER_TYPES
from tunesmith.config.schema import KEYS, RunConfig
from tunesmith.core.errors import ModelError
from tunesmith.core.lazy import lookup
from tunesmith.core.log import get_logger
from tunesmith.models.dtype import device
from tunesmith.models.linear import count_weights, held_bytes, is_quantized, linear_layers
from tunesmith.models.quantizers.base import Quantizer
from tunesmith.models.quantizers.bnb import keep_layout
from tunesmith.models.quantizers.stored import read_stored, settle_stored

logger = get_logger(__name__)

QUANTIZERS = {
    "bnb": "tunesmith.models.quantizers.bnb:BitsAndBytes",
    "hqq": "tunesmith.models.quantizers.hqq:HalfQuadratic",
    "torchao": "tunesmith.models.quantizers.torchao:TorchAo",
    "quanto": "tunesmith.models.quantizers.quanto:Quanto",
}
"""quantization_method -> class that is a Quantizer."""


@dataclass(frozen=True)
class LoadPlan:
    """How a base model is to be read.

    Attributes:
        quantizer: quantises while loading; None: nothing is asked for.
        stored: the library that the model's own files belong to, empty for a plain model.
        arguments: of from_pretrained.
    """

    quantizer: Quantizer | None = None
    stored: str = ""
    arguments: dict[str, Any] = field(default_factory=dict)

    @property
    def is_quantized(self) -> bool:
        """Whether the model that is loaded holds fewer bits."""
        return self.quantizer is not None or bool(self.stored)


def plan_loading(config: RunConfig, folder: Path, model_config: Any, dtype: torch.dtype) -> LoadPlan:
    """Decides how a base model is read and refuses what cannot be.

    Args:
        config: `quantization_bit` and its kin, `finetuning_type`.
        folder: of the model.
        model_config: transformers' configuration of it; what a stored quantisation needs here is set in it.
        dtype: that layers compute in.

    Raises:
        ModelError: the two do not go together, or this machine cannot.
        MissingPackageError: a library is not installed.
    """
    bits = config.quantization_bit if config.command in KEYS["quantization_bit"].commands else None
    stored = read_stored(folder)
    if stored:
        if bits:
            raise ModelError(
                f"quantization_bit: {bits}, but {folder} is quantised already ({stored}); drop the key, or name the "
                "unquantised model"
            )
        return LoadPlan(stored=stored, arguments=settle_stored(stored, model_config, _place(config), dtype))
    if bits is None:
        return LoadPlan()
    if config.train_from_scratch:
        raise ModelError("train_from_scratch and quantization_bit exclude each other: random weights are trained whole")
    quantizer: Quantizer = lookup(QUANTIZERS, config.quantization_method)(config, dtype, _place(config))
    quantizer.check()
    return LoadPlan(quantizer=quantizer, arguments=quantizer.loading())


def check_trainable(config: RunConfig, folder: Path) -> None:
    """Rounded weights cannot be trained.

    Raises:
        ModelError: a model that is stored quantised is to be trained itself.
    """
    stored = read_stored(folder)
    if stored and config.finetuning_type not in ADAPTER_TYPES:
        raise ModelError(
            f"finetuning_type: {config.finetuning_type}, but {folder} is quantised ({stored}): rounded weights "
            "cannot be trained; use finetuning_type: lora, or name the unquantised model"
        )


def _place(config: RunConfig) -> torch.device:
    found = torch.device("cpu") if config.use_cpu else device()
    if found.type == "cuda" and found.index is None:
        return torch.device("cuda", torch.cuda.current_device())
    return found


def finish_loading(model: nn.Module, plan: LoadPlan, config: RunConfig, dtype: torch.dtype) -> None:
    """Quantises what is not yet, then proves that the layers are, and says what it saved.

    Args:
        model: as it was read.
        plan: how it was read.
        config: of the run.
        dtype: that layers compute in.

    Raises:
        ModelError: `quantization_bit` was asked for and no layer is quantised.
    """
    if plan.quantizer is not None:
        plan.quantizer.convert(model)
    keep_layout(model, config)
    layers = linear_layers(model)
    done = {name: layer for name, layer in layers.items() if is_quantized(layer)}
    title = plan.quantizer.name if plan.quantizer else plan.stored
    if not done:
        if plan.quantizer is None:
            logger.info("%s: its weights are held as plain %s here", title, str(dtype).removeprefix("torch."))
            return
        raise ModelError(
            f"quantization_bit: {title} left all {len(layers)} linear layers as they were; this model cannot be "
            "quantised with this library"
        )
    model.requires_grad_(False)
    held = sum(held_bytes(layer) for layer in done.values())
    plain = sum(count_weights(layer) for layer in done.values()) * dtype.itemsize
    logger.info(
        "quantised: %d of %d linear layers, %s; %.1f MB instead of %.1f MB in %s",
        *(len(done), len(layers), title, held / 1e6, plain / 1e6, str(dtype).removeprefix("torch.")),
    )
    left = sorted(set(layers) - set(done))
    if left:
        logger.warning("%d linear layers are not quantised, such as %s", len(left), left[0])
