"""Attention of tokens laid end to end, each row over its own cache: no padding, no mask between rows. Generation only.

Rows may hold one token (decoding) or many (a piece of a prompt); a row's result does not depend on its neighbours.
Training, which has no cache, is attention.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import torch
from torch.nn import functional as F  # noqa: N812 - the field's name for it

CACHED = "tunesmith_cached"
CACHED_EAGER = "tunesmith_cached_eager"


class CachedRow(Protocol):
    """One row of the line, as the attention function sees it.

    Attributes:
        begin: its first token in the line.
        end: one past its last token.
    """

    begin: int
    end: int

    def extend(self, layer: int, key: torch.Tensor, value: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Stores keys (Hkv, n, D) and values (Hkv, n, Dv) of the row; returns all, (Hkv, L, D) and (Hkv, L, Dv).

        What it returns holds until the next row is extended: rows that share a beginning write over each other's ends.
        """
        ...


def _mask(n_query: int, n_key: int, window: int | None, device: torch.device) -> torch.Tensor | None:
    """(n_query, n_key) True where a query sees a key; the last query stands at the last key. None: all see all."""
    if n_query == 1 and (window is None or window >= n_key):
        return None
    places = torch.arange(n_key - n_query, n_key, device=device)[:, None]
    distance = places - torch.arange(n_key, device=device)[None, :]
    mask = distance >= 0
    return mask if window is None else mask & (distance < window)


def _explicit(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, mask: torch.Tensor | None, options: dict[str, Any]
) -> torch.Tensor:
    """Attention written out, for what the kernel lacks: soft caps and sinks. Shapes as in `_kernel`."""
    groups = query.shape[1] // key.shape[1]
    key, value = key.repeat_interleave(groups, dim=1), value.repeat_interleave(groups, dim=1)
    scores = query @ key.transpose(-1, -2) * options["scaling"]
    if options["softcap"]:
        scores = torch.tanh(scores / options["softcap"]) * options["softcap"]
    if mask is not None:
        scores = scores.masked_fill(~mask, float("-inf"))
    sinks = options["s_aux"]
    if sinks is not None:
        column = sinks.reshape(1, -1, 1, 1).expand(1, query.shape[1], query.shape[2], 1).to(scores.dtype)
        weights = torch.cat([scores, column], dim=-1).float().softmax(dim=-1)[..., :-1]
    else:
        weights = scores.float().softmax(dim=-1)
    return weights.to(value.dtype) @ value


def _kernel(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, mask: torch.Tensor | None, options: dict[str, Any]
) -> torch.Tensor:
    """Attention by torch's kernel.

    Args:
        query: (1, H, n, D).
        key: (1, Hkv, L, D).
        value: (1, Hkv, L, Dv).
        mask: (n, L) or None.
        options: scaling of the scores.

    Returns:
        (1, H, n, Dv).
    """
    heads, n_query, width = query.shape[1:]
    kv_heads = key.shape[1]
    scaling = options["scaling"]
    if n_query == 1 and mask is None and heads != kv_heads:
        # Query heads that share a key head stand as rows of one query: keys are neither copied nor read twice.
        grouped = query.view(1, kv_heads, heads // kv_heads, width)
        return F.scaled_dot_product_attention(grouped, key, value, scale=scaling).view(1, heads, 1, value.shape[-1])
    return F.scaled_dot_product_attention(
        query, key, value, attn_mask=mask, scale=scaling, enable_gqa=heads != kv_heads
    )


def cached_attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    **kwargs: Any,
) -> tuple[torch.Tensor, None]:
    """Causal attention of each row over its cache, in the form that transformers calls.

    Args:
        module: the attention layer; its `layer_idx` names the part of the cache.
        query: (1, H, T, D).
        key: (1, Hkv, T, D) of the new tokens, rotated.
        value: (1, Hkv, T, Dv).
        attention_mask: must be None.
        **kwargs: `cached_rows`: the rows of the line, T tokens together; `scaling` of the scores (None: D ** -0.5);
            `sliding_window`, `softcap`, `s_aux` (H,) where the model has them.

    Returns:
        (1, T, H, Dv) and None (no weights).
    """
    rows: Sequence[CachedRow] = kwargs["cached_rows"]
    if attention_mask is not None:
        raise AssertionError("cached attention keeps rows apart by itself; no mask was expected")
    if query.shape[0] != 1 or query.shape[2] != key.shape[2] or query.shape[2] != rows[-1].end:
        raise AssertionError("cached attention takes one line of rows, their new keys and values")
    scaling = kwargs.get("scaling")
    window = kwargs.get("sliding_window")
    options = {
        "scaling": scaling if scaling is not None else query.shape[-1] ** -0.5,
        "softcap": kwargs.get("softcap"),
        "s_aux": kwargs.get("s_aux"),
    }
    is_explicit = kwargs.get("explicit") or options["softcap"] or options["s_aux"] is not None
    attend = _explicit if is_explicit else _kernel
    layer: int = module.layer_idx
    outputs = []
    for row in rows:
        part = slice(row.begin, row.end)
        keys, values = row.extend(layer, key[0, :, part], value[0, :, part])
        n_query = row.end - row.begin
        if window is not None:
            seen = window + n_query - 1  # earlier keys are out of sight of all queries
            keys, values = keys[:, -seen:], values[:, -seen:]
        mask = _mask(n_query, keys.shape[1], window, query.device)
        outputs.append(attend(query[:, :, part], keys[None], values[None], mask, options))
    return torch.cat(outputs, dim=2).transpose(1, 2), None


def cached_eager_attention(*args: Any, **kwargs: Any) -> tuple[torch.Tensor, None]:
    """`cached_attention` with the softmax written out: `flash_attn: disabled`."""
    return cached_attention(*args, explicit=True, **kwargs)


def register() -> None:
    """Makes the two functions known to transformers; no mask function goes with them, so models build no mask."""
    from transformers import AttentionInterface

    AttentionInterface.register(CACHED, cached_attention)
    AttentionInterface.register(CACHED_EAGER, cached_eager_attention)
