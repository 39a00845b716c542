"""What a reference model says of a micro-batch: the base under an adapter, another model, or numbers kept on disk."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from tunesmith.config.result import ADAPTER_TYPES
from tunesmith.config.schema import RunConfig
from tunesmith.core.log import get_logger
from tunesmith.models.forward import HiddenForward, MicroBatch
from tunesmith.models.load import load_frozen
from tunesmith.objectives.base import Objective, Scored

logger = get_logger(__name__)


class Reference(ABC):
    """A model that is not trained; it has no dropout and no gradient."""

    @abstractmethod
    def scored(self, model: nn.Module, batch: MicroBatch) -> Scored:
        """Hidden states and head of the reference at the positions of a micro-batch.

        Args:
            model: the model in training.
            batch: what both read.
        """

    def logps(self, model: nn.Module, batch: MicroBatch) -> torch.Tensor:
        """(N,) log-probabilities of the targets in nats."""
        with torch.no_grad():
            return self.scored(model, batch).per_token_logps()


@contextmanager
def without_adapter(model: nn.Module) -> Iterator[None]:
    """The base model under a peft adapter, with dropout off; both are as before afterwards."""
    peft_model: Any = model
    was_training = model.training
    model.eval()
    try:
        with peft_model.disable_adapter():
            yield
    finally:
        model.train(was_training)


class BaseReference(Reference):
    """The model in training with its adapter switched off: no second copy of the weights."""

    def __init__(self, forward: HiddenForward) -> None:
        self._forward = forward

    @torch.no_grad()
    def scored(self, model: nn.Module, batch: MicroBatch) -> Scored:
        """See `Reference.scored`."""

        def head(hidden: torch.Tensor) -> torch.Tensor:
            with without_adapter(model):
                logits: torch.Tensor = self._forward.head(hidden)
            return logits

        with without_adapter(model):
            hidden = self._forward(model, batch)
        is_bare = type(self._forward.head) is nn.Linear
        return Scored(hidden, self._forward.head if is_bare else head, batch.targets)

    @torch.no_grad()
    def logps(self, model: nn.Module, batch: MicroBatch) -> torch.Tensor:
        """See `Reference.logps`."""
        with without_adapter(model):
            return Scored(self._forward(model, batch), self._forward.head, batch.targets).per_token_logps()


class ModelReference(Reference):
    """A model of its own."""

    def __init__(self, model: nn.Module) -> None:
        self._model = model
        self._forward = HiddenForward(model)

    @torch.no_grad()
    def scored(self, model: nn.Module, batch: MicroBatch) -> Scored:
        """See `Reference.scored`."""
        return Scored(self._forward(self._model, batch), self._forward.head, batch.targets)


def find_reference(config: RunConfig, objective: Objective, forward: HiddenForward, tokenizer: Any) -> Reference | None:
    """The reference that the objective asks for; None where it asks for none, or where its numbers are to be kept.

    Args:
        config: `finetuning_type`, `ref_model` and its keys.
        objective: says whether it needs one.
        forward: how the model in training is called.
        tokenizer: of the model in training; a reference model must know the same tokens.
    """
    if objective.reference == "none" or is_kept(config, objective):
        return None
    if names_reference(config) or config.finetuning_type not in ADAPTER_TYPES:
        name = config.ref_model or config.model_name_or_path or ""
        logger.info("reference: %s, a model of its own", " + ".join([name, *config.ref_model_adapters]))
        bits = config.ref_model_quantization_bit
        return ModelReference(load_frozen(config, tokenizer, name, config.ref_model_adapters, bits))
    if config.adapter_name_or_path and not config.create_new_adapter:
        logger.info(
            "reference: the base model without the adapter that is trained on; to hold the run near that adapter "
            "instead, set create_new_adapter: true"
        )
    return BaseReference(forward)


def names_reference(config: RunConfig) -> bool:
    """Whether the user wants a reference other than the model that training starts from."""
    return bool(config.ref_model or config.ref_model_adapters or config.ref_model_quantization_bit)


def is_kept(config: RunConfig, objective: Objective) -> bool:
    """Whether the reference is the model before its first step, asked once for all rows (`kept_reference.py`)."""
    has_rows = objective.reference == "logps" and config.stage in ("dpo", "kto")
    return has_rows and config.finetuning_type not in ADAPTER_TYPES and not names_reference(config)
