"""What a reference model says of a micro-batch: the base under an adapter, another model, or numbers kept on disk."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from tunesmith.config.schema import RunConfig
from tunesmith.core.errors import TrainingError
from tunesmith.core.log import get_logger
from tunesmith.models.forward import HiddenForward, MicroBatch
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
    while not hasattr(model, "disable_adapter") and isinstance(getattr(model, "module", None), nn.Module):
        model = model.module  # data-parallel wrappers
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
        return Scored(hidden, head, batch.targets)

    @torch.no_grad()
    def logps(self, model: nn.Module, batch: MicroBatch) -> torch.Tensor:
        """See `Reference.logps`."""
        with without_adapter(model):
            return Scored(self._forward(model, batch), self._forward.head, batch.targets).per_token_logps()


class ModelReference(Reference):
    """A model of its own."""

    def __init__(self, model: nn.Module) -> None:
        self._model = model.eval().requires_grad_(False)
        self._forward = HiddenForward(model)

    @torch.no_grad()
    def scored(self, model: nn.Module, batch: MicroBatch) -> Scored:
        """See `Reference.scored`."""
        return Scored(self._forward(self._model, batch), self._forward.head, batch.targets)


def find_reference(config: RunConfig, objective: Objective, forward: HiddenForward) -> Reference | None:
    """The reference that the objective asks for; None where it asks for none.

    Args:
        config: `finetuning_type`, `ref_model` and its keys.
        objective: says whether it needs one.
        forward: how the model in training is called.
    """
    if objective.reference == "none":
        return None
    if config.finetuning_type != "lora":
        raise TrainingError(f"stage {config.stage} with finetuning_type {config.finetuning_type} is not built yet")
    if config.adapter_name_or_path and not config.create_new_adapter:
        logger.info(
            "reference: the base model without the adapter that is trained on; to hold the run near that adapter "
            "instead, set create_new_adapter: true"
        )
    return BaseReference(forward)
