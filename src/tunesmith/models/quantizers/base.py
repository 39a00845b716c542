"""What a library that quantises while loading has to say."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from tunesmith.config.schema import RunConfig


@dataclass(frozen=True)
class Quantizer:
    """How one library quantises.

    Attributes:
        config: the `quantization_*` keys.
        dtype: that layers compute in.
        place: device of the layers.
    """

    config: RunConfig
    dtype: torch.dtype
    place: torch.device

    @property
    def name(self) -> str:
        """What it does, for the log."""
        raise NotImplementedError

    def check(self) -> None:
        """Refuses what this machine or these packages cannot do, before anything is read.

        Raises:
            ModelError, MissingPackageError: with the reason.
        """

    def loading(self) -> dict[str, Any]:
        """Arguments of from_pretrained."""
        return {}

    def convert(self, model: nn.Module) -> None:
        """What is left to do when the weights are there."""
