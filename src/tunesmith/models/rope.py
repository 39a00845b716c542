"""Rotary positions stretched to longer texts than a model was trained on, and kept with what learned them.

linear: all frequencies divided by the factor (arXiv 2306.15595). dynamic: NTK, by the length of the text at hand.
yarn: high frequencies stay, low ones are divided (arXiv 2309.00071). llama3: the same with Llama 3.1's bounds.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import nn

from tunesmith.config.schema import RunConfig
from tunesmith.core.errors import ModelError
from tunesmith.core.log import get_logger
from tunesmith.core.runs import write_json

logger = get_logger(__name__)

ROPE_FILE = "rope.json"
"""Beside an adapter that was trained on stretched positions; whole models say it in their config.json."""
INFERENCE_FACTOR = 2.0
"""For a base model that nobody trained on longer texts, as LLaMA-Factory has it."""
_FIELDS = ("rope_parameters", "max_position_embeddings")


def _main_parameters(text: Any) -> dict[str, Any]:
    """The rotary parameters of whole-row attention; models with sliding windows have others beside them."""
    parameters: dict[str, Any] = getattr(text, "rope_parameters", None) or {}
    return parameters.get("full_attention", parameters)


def kind_of(config: Any) -> str:
    """`default`, `linear`, `dynamic`, `yarn`, `llama3`, ...; empty for models without rotary positions."""
    return str(_main_parameters(config.get_text_config()).get("rope_type", ""))


def context_of(config: Any) -> int | None:
    """Positions that a model can use, None where its configuration does not say."""
    text = config.get_text_config()
    limit = getattr(text, "max_position_embeddings", None)
    if limit and kind_of(config) == "dynamic":  # stays the length from which on frequencies change
        return int(limit * _main_parameters(text)["factor"])
    return limit


def settle(config: RunConfig, model_config: Any, adapters: Sequence[Path]) -> bool:
    """Sets a model's rotary parameters before it is made: as its adapters were trained, or as `rope_scaling` asks.

    Args:
        config: `rope_scaling`; in training also `cutoff_len`, which the stretched model must hold.
        model_config: of the base; it is changed.
        adapters: folders of adapters that are put on the model.

    Returns:
        Whether positions are stretched beyond what the base's own configuration says.

    Raises:
        ModelError: there is nothing to stretch, or it is stretched otherwise already.
    """
    text = model_config.get_text_config()
    kept = _kept(adapters)
    if kept is not None:
        for name in _FIELDS:
            setattr(text, name, kept[name])
        logger.info("positions are stretched as in the adapter's training: %s", kind_of(model_config))
    asked = config.rope_scaling
    if asked is None:
        return kept is not None
    has, limit = kind_of(model_config), context_of(model_config)
    if not has or not limit:
        raise ModelError(f"rope_scaling: {asked}: {text.model_type} models have no rotary positions to stretch")
    if has not in ("default", asked):
        raise ModelError(f"rope_scaling: {asked}, but this model's positions are stretched by {has} already; drop it")
    if has == asked and (config.command != "train" or config.cutoff_len <= limit):
        return kept is not None  # stretched by an earlier training
    if kept is not None:
        raise ModelError(
            f"rope_scaling: the adapter was trained for {limit} positions, cutoff_len is {config.cutoff_len}"
        )
    _stretch(config, text, asked, limit)
    return True


def _stretch(config: RunConfig, text: Any, asked: str, limit: int) -> None:
    factor = INFERENCE_FACTOR
    if config.command == "train":
        if config.cutoff_len <= limit:
            raise ModelError(
                f"rope_scaling: {asked} has nothing to stretch: cutoff_len {config.cutoff_len} is within the {limit} "
                "positions of this model; raise cutoff_len, or drop rope_scaling"
            )
        factor = float(math.ceil(config.cutoff_len / limit))
    parameters = _main_parameters(text)
    parameters |= {"rope_type": asked, "factor": factor}
    if asked in ("yarn", "llama3"):
        parameters["original_max_position_embeddings"] = limit
    if asked == "llama3":
        parameters |= {"low_freq_factor": 1.0, "high_freq_factor": 4.0}
    if asked != "dynamic":
        text.max_position_embeddings = int(limit * factor)
    logger.info("rope_scaling: %s by %g, from %d to %d positions", asked, factor, limit, int(limit * factor))


def _kept(adapters: Sequence[Path]) -> dict[str, Any] | None:
    """What the adapters were trained with.

    Raises:
        ModelError: they do not agree, or a file is not readable.
    """
    found = [kept_with(path) for path in adapters]
    if any(other != found[0] for other in found[1:]):
        raise ModelError("the adapters in adapter_name_or_path were trained on differently stretched positions")
    return found[0] if found else None


def kept_with(adapter: Path) -> dict[str, Any] | None:
    """The rotary parameters that an adapter was trained with, None where they are the base's own."""
    file = adapter / ROPE_FILE
    if not file.is_file():
        return None
    try:
        found: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        return {name: found[name] for name in _FIELDS}
    except (ValueError, KeyError, TypeError) as error:
        raise ModelError(f"{file} cannot be read: {error}") from error


def write_beside(folder: Path, model_config: Any) -> None:
    """Writes what `kept_with` reads."""
    text = model_config.get_text_config()
    write_json(folder / ROPE_FILE, {name: getattr(text, name) for name in _FIELDS})


def forget_lengths(model: nn.Module) -> None:
    """Makes dynamic frequencies depend on the text at hand alone; transformers keeps those of the longest one."""
    if kind_of(model.config) != "dynamic":
        return
    for module in model.modules():
        if hasattr(module, "max_seq_len_cached") and hasattr(module, "original_inv_freq"):
            module.register_forward_pre_hook(_forget)


def _forget(module: Any, _: Any) -> None:
    module.max_seq_len_cached = module.original_max_seq_len
    module.inv_freq = module.original_inv_freq.to(module.inv_freq.device)


def check_length(model_config: Any, longest: int) -> None:
    """Says so when rows are longer than the positions that a model knows.

    Args:
        model_config: of the model in training.
        longest: tokens of the longest row.

    Raises:
        ModelError: its positions are a table that ends before.
    """
    limit = context_of(model_config)
    if not limit or longest <= limit:
        return
    if not kind_of(model_config):
        raise ModelError(
            f"the longest row has {longest} tokens, this model has {limit} positions: set cutoff_len: {limit}"
        )
    logger.warning(
        "the longest row has %d tokens, this model was trained on %d positions: set rope_scaling, or cutoff_len: %d",
        longest,
        limit,
        limit,
    )
