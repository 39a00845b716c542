"""Attention over rows laid end to end, in the form transformers calls: no padding, no mask, no row sees another."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.nn import functional as F  # noqa: N812 - the field's name for it

from tunesmith.core.errors import ModelError
from tunesmith.core.optional import is_installed

VARLEN = "tunesmith_varlen"
VARLEN_EAGER = "tunesmith_varlen_eager"

_FLASH = {"fa2": "flash_attention_2", "fa3": "flash_attention_3"}


def _row_mask(query: torch.Tensor, key: torch.Tensor, sliding_window: int | None) -> torch.Tensor | None:
    """(Lq, Lk) boolean mask of the last Lq of Lk places of a causal row, under a sliding window.

    None where plain causal attention over the whole row is meant.
    """
    n_query, n_key = query.shape[2], key.shape[2]
    has_window = sliding_window is not None and sliding_window < n_key
    if n_query == n_key and not has_window:
        return None
    places = torch.arange(n_key, device=query.device)
    distance = places[n_key - n_query :, None] - places[None, :]
    return (distance >= 0) & (distance < (sliding_window if has_window and sliding_window else n_key))


def _explicit(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, options: dict[str, Any]) -> torch.Tensor:
    """Attention of one row written out, for what scaled_dot_product_attention lacks: soft caps and sinks.

    Args:
        query: (1, H, Lq, D), the last Lq of Lk places.
        key: (1, H, Lk, D).
        value: (1, H, Lk, Dv).
        options: scaling, softcap, s_aux (H,), sliding_window, dropout.
    """
    n_query, n_key = query.shape[2], key.shape[2]
    scores = query @ key.transpose(-1, -2) * options["scaling"]
    if options["softcap"]:
        scores = torch.tanh(scores / options["softcap"]) * options["softcap"]
    mask = _row_mask(query, key, options["sliding_window"])
    if mask is None:
        mask = torch.ones(n_query, n_key, dtype=torch.bool, device=query.device).tril()
    scores = scores.masked_fill(~mask, float("-inf"))
    if options["s_aux"] is not None:
        sinks = options["s_aux"].reshape(1, -1, 1, 1).expand(1, query.shape[1], n_query, 1).to(scores.dtype)
        weights = torch.cat([scores, sinks], dim=-1).float().softmax(dim=-1)[..., :-1]
    else:
        weights = scores.float().softmax(dim=-1)
    weights = F.dropout(weights.to(value.dtype), options["dropout"], training=options["dropout"] > 0)
    return weights @ value


def _sdpa(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, options: dict[str, Any]) -> torch.Tensor:
    """Attention of one row by torch's kernel, shapes as in `_explicit`."""
    mask = _row_mask(query, key, options["sliding_window"])
    return F.scaled_dot_product_attention(
        query,
        key,
        value,
        attn_mask=mask,
        is_causal=mask is None,
        dropout_p=options["dropout"],
        scale=options["scaling"],
    )


def _groups(row_lengths: tuple[int, ...], size: int, shift: int) -> tuple[int, ...]:
    """Rows cut into groups of `size` tokens, the first one of `shift` (0: of `size`); no group reaches into a row."""
    cut = []
    for length in row_lengths:
        first = min(shift, length)
        cut += [first] if first else []
        cut += [min(size, length - start) for start in range(first, length, size)]
    return tuple(cut)


def _shifted(
    tensors: tuple[torch.Tensor, torch.Tensor, torch.Tensor],
    row_lengths: tuple[int, ...],
    size: int,
    options: dict[str, Any],
    explicit: bool,
) -> torch.Tensor:
    """Shifted sparse attention (LongLoRA, arXiv 2309.12307): half of the heads see groups of `size` tokens, the other
    half groups that are shifted by half a group.

    The paper rolls the tokens, so that its last group holds the end and the beginning of a row. Here these are two
    groups of half the size: nothing is seen that comes later in the row.
    """
    query, key, value = tensors
    groups = query.shape[1] // key.shape[1]
    if key.shape[1] % 2:  # an odd number of key heads has no halves
        key, value = key.repeat_interleave(groups, dim=1), value.repeat_interleave(groups, dim=1)
    halves = []
    parts = zip(query.chunk(2, dim=1), key.chunk(2, dim=1), value.chunk(2, dim=1), (0, size // 2), strict=True)
    for number, (*part, shift) in enumerate(parts):
        chosen = options
        if options["s_aux"] is not None:
            chosen = options | {"s_aux": options["s_aux"].chunk(2)[number]}
        halves.append(_attend_rows((part[0], part[1], part[2]), _groups(row_lengths, size, shift), chosen, explicit))
    return torch.cat(halves, dim=2)


def _attend_rows(
    tensors: tuple[torch.Tensor, torch.Tensor, torch.Tensor],
    row_lengths: tuple[int, ...],
    options: dict[str, Any],
    explicit: bool,
    forks: tuple[tuple[int, ...], ...] | None = None,
) -> torch.Tensor:
    """(1, T, H, Dv) of rows that see themselves only; of a forked row no branch sees another."""
    query, key, value = tensors
    if query.shape[0] != 1 or query.shape[2] != key.shape[2]:
        raise AssertionError("varlen attention takes one line of rows and no cache")
    groups = query.shape[1] // key.shape[1]
    row = _explicit if explicit or options["softcap"] or options["s_aux"] is not None else _sdpa
    outputs = []
    rows = zip(*(tensor.split(row_lengths, 2) for tensor in (query, key, value)), strict=True)
    for (q, k, v), fork in zip(rows, forks or ((),) * len(row_lengths), strict=True):
        if groups > 1:
            # CPU kernels want as many key heads as query heads; one row at a time keeps the copy small.
            k, v = k.repeat_interleave(groups, dim=1), v.repeat_interleave(groups, dim=1)
        attended = _forked(row, (q, k, v), fork, options) if fork else row(q, k, v, options)
        outputs.append(attended.transpose(1, 2))
    return torch.cat(outputs, dim=1)


def _forked(
    row: Callable[..., torch.Tensor],
    tensors: tuple[torch.Tensor, torch.Tensor, torch.Tensor],
    fork: tuple[int, ...],
    options: dict[str, Any],
) -> torch.Tensor:
    """Attention of a row that is one beginning with several continuations, each of which sees the beginning and itself.

    Args:
        row: attention of a plain row.
        tensors: query, key, value of the whole row.
        fork: tokens of the beginning, then of each continuation.
        options: see `_explicit`.
    """
    query, key, value = tensors
    head, first, *others = fork
    stem = slice(0, head + first)
    outputs = [row(query[:, :, stem], key[:, :, stem], value[:, :, stem], options)]
    start = head + first
    for length in others:
        own = slice(start, start + length)
        keys, values = (torch.cat([part[:, :, :head], part[:, :, own]], dim=2) for part in (key, value))
        outputs.append(row(query[:, :, own], keys, values, options))
        start += length
    return torch.cat(outputs, dim=2)


def varlen_attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    **kwargs: Any,
) -> tuple[torch.Tensor, None]:
    """Causal self-attention over rows laid end to end, in the form that transformers calls.

    Args:
        module: the attention layer.
        query: (1, H, T, D), T = sum of `row_lengths`.
        key: (1, Hkv, T, D).
        value: (1, Hkv, T, Dv).
        attention_mask: must be None: rows are kept apart by their lengths.
        **kwargs: `scaling` of the scores (None: D ** -0.5), `dropout` of the weights, `row_lengths` tuple of tokens a
            row, `row_forks` how each row forks (see `_forked`; empty: it does not); `group_tokens` of shifted sparse
            attention; `sliding_window`, `softcap`, `s_aux` where the model has
            them.

    Returns:
        (1, T, H, Dv) and None (no weights).
    """
    if attention_mask is not None:
        raise AssertionError("varlen attention keeps rows apart by their lengths; no mask was expected")
    if not kwargs.get("is_causal", True) or not getattr(module, "is_causal", True):
        raise AssertionError("varlen attention is causal")
    scaling = kwargs.get("scaling")
    options = {
        "scaling": scaling if scaling is not None else query.shape[-1] ** -0.5,
        "dropout": kwargs.get("dropout", 0.0) if module.training else 0.0,
        "sliding_window": kwargs.get("sliding_window"),
        "softcap": kwargs.get("softcap"),
        "s_aux": kwargs.get("s_aux"),
    }
    explicit = bool(kwargs.get("explicit"))
    lengths, size = kwargs.get("row_lengths") or (query.shape[2],), kwargs.get("group_tokens")
    if size:
        return _shifted((query, key, value), lengths, size, options, explicit), None
    return _attend_rows((query, key, value), lengths, options, explicit, kwargs.get("row_forks")), None


def varlen_eager_attention(*args: Any, **kwargs: Any) -> tuple[torch.Tensor, None]:
    """`varlen_attention` with the softmax written out: `flash_attn: disabled`."""
    return varlen_attention(*args, explicit=True, **kwargs)


def register() -> None:
    """Makes the two functions known to transformers; no mask function goes with them, so models build no mask."""
    from transformers import AttentionInterface

    AttentionInterface.register(VARLEN, varlen_attention)
    AttentionInterface.register(VARLEN_EAGER, varlen_eager_attention)


def _flash(flash_attn: str) -> str:
    package = "flash_attn" if flash_attn == "fa2" else "flash_attn_interface"
    if not is_installed(package):
        raise ModelError(
            f"flash_attn: {flash_attn} needs the package {package!r}, which needs an NVIDIA GPU; "
            "use flash_attn: auto, which runs without padding on every device"
        )
    return _FLASH[flash_attn]


def training_implementation(flash_attn: str) -> str:
    """The attn_implementation for training under `flash_attn`.

    Raises:
        ModelError: fa2 or fa3 without their package.
    """
    if flash_attn in _FLASH:
        return _flash(flash_attn)
    return VARLEN_EAGER if flash_attn == "disabled" else VARLEN


def inference_implementation(flash_attn: str) -> str:
    """The attn_implementation for generation, where batches are padded and a cache is kept.

    Raises:
        ModelError: fa2 or fa3 without their package.
    """
    if flash_attn in _FLASH:
        return _flash(flash_attn)
    return "eager" if flash_attn == "disabled" else "sdpa"
