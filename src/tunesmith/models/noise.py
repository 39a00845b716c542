"""NEFTune (arXiv 2310.05914): uniform noise on the embeddings while training.

A row of L tokens with embeddings of width d gets noise from [-1, 1] times alpha / sqrt(L d). L is the row's own length:
rows lie end to end here, and the length of the whole line would make the noise too small.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn


class EmbeddingNoise:
    """A hook on an embedding.

    Args:
        embedding: the model's input embedding.
        alpha: `neftune_noise_alpha`.

    Attributes:
        row_lengths: tokens of each row of the line that comes next.
    """

    def __init__(self, embedding: nn.Module, alpha: float) -> None:
        self._alpha = alpha
        self.row_lengths: tuple[int, ...] = ()
        embedding.register_forward_hook(self._add)

    def _add(self, module: nn.Module, _: Any, output: torch.Tensor) -> torch.Tensor | None:
        """Output (1, T, d); in evaluation it stays as it is."""
        if not module.training or sum(self.row_lengths) != output.shape[1]:
            return None
        lengths = torch.tensor(self.row_lengths, device=output.device)
        strength = self._alpha / (lengths * output.shape[-1]).to(output.dtype).sqrt()
        noise = torch.empty_like(output).uniform_(-1, 1)
        return output + noise * strength.repeat_interleave(lengths)[None, :, None]
