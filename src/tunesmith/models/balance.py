"""The load-balancing loss of routed experts (Switch Transformer, arXiv 2101.03961, equations 4 to 6), row by row.

For E experts, f_i the share of a row's tokens that are sent to expert i and P_i its mean router probability over the
row: E sum_i f_i P_i, with layers counted as more tokens, as transformers does. transformers takes all rows of a batch
together, so its value depends on how a step is cut; here every row has a loss of its own, which is the same number for
a batch of one row, and the mean over rows does not depend on the cut.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from tunesmith.core.errors import ModelError


def check_routers(config: Any) -> None:
    """Refuses models that have no routed experts, or do not show what their routers do.

    Raises:
        ModelError: there is nothing to balance.
    """
    text = config.get_text_config()
    if not hasattr(text, "output_router_logits") or not getattr(text, "num_experts_per_tok", 0):
        raise ModelError(
            f"moe_aux_loss_coef: {text.model_type} models have no routed experts whose choices transformers shows; "
            "drop the key"
        )


def balance_of_rows(logits: Sequence[torch.Tensor], top_k: int, row_lengths: tuple[int, ...]) -> torch.Tensor:
    """The loss of each row.

    Args:
        logits: (T, E) of the router of each layer, rows end to end.
        top_k: experts that a token meets.
        row_lengths: tokens of each of the R rows, sum T.

    Returns:
        (R,) float32; top_k where the choice is even, more where it is not.
    """
    experts = logits[0].shape[-1]
    lengths = torch.tensor(row_lengths, device=logits[0].device)
    row_of = torch.arange(len(row_lengths), device=lengths.device).repeat_interleave(lengths)
    chosen = torch.zeros(len(row_lengths), experts, device=lengths.device)
    probability = torch.zeros_like(chosen)
    for layer in logits:
        probabilities = layer.reshape(-1, experts).float().softmax(dim=-1)
        picks = torch.zeros_like(probabilities).scatter_(1, probabilities.topk(top_k, dim=-1).indices, 1.0)
        chosen = chosen.index_add(0, row_of, picks)
        probability = probability.index_add(0, row_of, probabilities)
    seen = (lengths * len(logits))[:, None]
    return experts * ((chosen / seen) * (probability / seen)).sum(dim=-1)
