"""Mixture of depths (arXiv 2404.02258): every second block works on an eighth of the tokens, chosen by a router.

A router gives each token a number r. In training a block takes the k = ceil(L / 8) tokens with the largest r of a row
of L tokens, x_i + g(r_i) f(x)_i, and leaves all others as they are (equation 1). Which tokens those are is known only
when the whole row is; for answering, the sign of r decides, and a binary cross-entropy in training, with the choice as
its target, makes it agree with the choice (section 3.5). Where we differ: g(r) = 2 sigmoid(r) instead of r, which is 1
at the boundary, so that a block that was trained densely keeps its scale when it is converted.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812 - the field's name for it

from tunesmith.core.errors import ModelError
from tunesmith.core.log import get_logger
from tunesmith.models.provenance import weight_files
from tunesmith.models.targets import layers_of

logger = get_logger(__name__)

FIELD = "mixture_of_depths"
"""Of config.json: the share of tokens, and which blocks are routed."""
CAPACITY = 1 / 8
EVERY = 2
ROUTER_LOSS = 0.01
"""Weight of the routers' cross-entropy beside the loss of a token."""
_ROUTER = "depth_router"


def is_routed(model_config: Any) -> bool:
    """Whether a model's configuration says that its blocks are routed."""
    return bool(getattr(model_config.get_text_config(), FIELD, None))


def convert(model: Any) -> None:
    """Gives every second block of a dense model a router.

    Raises:
        ModelError: its blocks cannot work on some of the tokens alone.
    """
    prefix, layers = layers_of(model)
    setattr(model.config.get_text_config(), FIELD, {"capacity": CAPACITY, "every": EVERY})
    if len(layers) < EVERY:
        raise ModelError(f"mixture_of_depths: {prefix} has {len(layers)} block; at least {EVERY} are needed")
    expected = _probe(model)
    _route(model)
    with _all_tokens(model):
        found = _probe(model)
    if found is None or expected is None or not torch.allclose(found, expected, atol=1e-3, rtol=1e-3):
        raise ModelError(
            f"mixture_of_depths: the blocks of {model.config.model_type} models cannot work on some of the tokens alone"
        )
    routed = len(list(_routed(model)))
    logger.info("mixture of depths: %d of %d blocks work on %g of the tokens", routed, len(layers), CAPACITY)


def restore(model: Any, folder: Path) -> None:
    """Gives a loaded model the routers that were saved with it.

    Raises:
        ModelError: routers are missing in the folder.
    """
    from safetensors import safe_open

    _route(model)
    wanted = {name: tensor for name, tensor in model.state_dict().items() if f".{_ROUTER}." in name}
    for file in weight_files(folder):
        with safe_open(str(file), "pt") as handle:
            for name in set(handle.keys()) & set(wanted):
                wanted.pop(name).copy_(handle.get_tensor(name))
    if wanted:
        first = sorted(wanted)[0]
        raise ModelError(f"{folder} says mixture_of_depths, but lacks {len(wanted)} routers (first: {first})")


def _route(model: Any) -> None:
    """Puts a router into every second block, beginning with the second, and its forward pass around the block's own."""
    width = model.config.get_text_config().hidden_size
    place = model.get_input_embeddings().weight
    for number, layer in enumerate(layers_of(model)[1]):
        if number % EVERY == EVERY - 1:
            router = nn.Linear(width, 1, bias=False).to(place)
            nn.init.normal_(router.weight, std=0.02)
            layer.add_module(_ROUTER, router)
            layer.forward = _RoutedForward(layer)


def _routed(model: Any) -> Iterator[_RoutedForward]:
    for module in model.modules():
        if isinstance(module.__dict__.get("forward"), _RoutedForward):
            yield module.forward


class _all_tokens:  # noqa: N801 - reads as a function
    """Within it routed blocks take every token at full strength: the dense model."""

    def __init__(self, model: Any) -> None:
        self._passes = list(_routed(model))

    def __enter__(self) -> None:
        for one in self._passes:
            one.is_dense = True

    def __exit__(self, *_: Any) -> None:
        for one in self._passes:
            one.is_dense = False


@torch.no_grad()
def _probe(model: Any) -> torch.Tensor | None:
    was_training = model.training
    model.eval()
    try:
        logits: torch.Tensor = model(input_ids=torch.arange(5)[None].to(model.device), use_cache=False).logits.float()
    except (RuntimeError, TypeError, ValueError, IndexError, KeyError):
        return None
    finally:
        model.train(was_training)
    return logits


class _RoutedForward:
    """The forward pass of a routed block.

    Attributes:
        is_dense: take every token, for the probe.
        losses: (R,) cross-entropies of the router over each row since they were last taken.
    """

    def __init__(self, layer: Any) -> None:
        self._layer = layer
        self.is_dense = False
        self.losses: list[torch.Tensor] = []

    def __deepcopy__(self, memo: dict[int, Any]) -> _RoutedForward:
        raise ModelError("mixture of depths: a routed block cannot be copied (additional_target, modules_to_save)")

    def __call__(self, hidden: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        """(B, T, H) to the same; only one row, or a line of rows, where a cache is kept."""
        if args:
            raise TypeError("a routed block takes its other inputs by name")
        scores = getattr(self._layer, _ROUTER)(hidden).squeeze(-1).float()
        outputs = [self._one(hidden[row : row + 1], scores[row], _of_row(kwargs, row)) for row in range(len(hidden))]
        return torch.cat(outputs)

    def _one(self, hidden: torch.Tensor, scores: torch.Tensor, kwargs: dict[str, Any]) -> torch.Tensor:
        """(1, T, H), (T,): a line of rows."""
        lengths = kwargs.get("row_lengths") or (len(scores),)
        chosen, counts = self._choose(scores, lengths)
        if not len(chosen):
            return hidden
        if "row_lengths" in kwargs:
            kwargs["row_lengths"] = tuple(count for count in counts if count)
        part = hidden[:, chosen]
        plain = type(self._layer).forward
        output = plain(self._layer, part, **_of_tokens(kwargs, chosen, len(scores)))
        output = output[0] if isinstance(output, tuple) else output
        strength = torch.ones_like(scores[chosen]) if self.is_dense else 2 * torch.sigmoid(scores[chosen])
        return hidden.index_add(1, chosen, (output - part) * strength.to(part.dtype)[None, :, None])

    def _choose(self, scores: torch.Tensor, lengths: tuple[int, ...]) -> tuple[torch.Tensor, list[int]]:
        """Places of the tokens that the block works on, ascending, and how many of each row."""
        if self.is_dense:
            return torch.arange(len(scores), device=scores.device), list(lengths)
        if not self._layer.training:
            return (scores > 0).nonzero().squeeze(1), [int((row > 0).sum()) for row in scores.split(lengths)]
        places, counts, losses, begin = [], [], [], 0
        for row in scores.split(lengths):
            count = math.ceil(CAPACITY * len(row))
            top = row.topk(count).indices.sort().values
            target = torch.zeros_like(row).index_fill(0, top, 1.0)
            losses.append(F.binary_cross_entropy_with_logits(row, target))
            places.append(top + begin)
            counts.append(count)
            begin += len(row)
        self.losses.append(torch.stack(losses))
        return torch.cat(places), counts


def _of_row(kwargs: dict[str, Any], row: int) -> dict[str, Any]:
    """A block's inputs for one row of a batch."""
    mask = kwargs.get("attention_mask")
    positions = kwargs.get("position_ids")
    picked = dict(kwargs)
    if mask is not None and len(mask) > 1:
        if kwargs.get("past_key_values") is not None:
            raise ModelError("mixture of depths answers one text at a time")
        picked["attention_mask"] = mask[row : row + 1]
    if positions is not None and len(positions) > 1:
        picked["position_ids"] = positions[row : row + 1]
    embedded = kwargs.get("position_embeddings")
    if embedded is not None:
        picked["position_embeddings"] = tuple(part[row : row + 1] if len(part) > 1 else part for part in embedded)
    return picked


def _of_tokens(kwargs: dict[str, Any], chosen: torch.Tensor, length: int) -> dict[str, Any]:
    """A block's inputs for some tokens of a line: positions stay those of the row, the mask is cut both ways."""
    picked = dict(kwargs)
    if picked.get("position_ids") is not None:
        picked["position_ids"] = picked["position_ids"][:, chosen]
    if picked.get("position_embeddings") is not None:
        picked["position_embeddings"] = tuple(part[:, chosen] for part in picked["position_embeddings"])
    mask = picked.get("attention_mask")
    if mask is not None and mask.dim() == 4:
        # With a cache a block has seen fewer tokens than the row has; a single new token sees all of them.
        picked["attention_mask"] = mask[:, :, chosen][..., chosen] if mask.shape[-1] == length else None
    return picked


def take_losses(model: Any) -> torch.Tensor | None:
    """(R,) mean cross-entropy of the routers over each row of the last training pass, once; None without routers."""
    taken = []
    for one in _routed(model):
        taken += one.losses[-1:]
        one.losses = []
    return torch.stack(taken).mean(dim=0) if taken else None
