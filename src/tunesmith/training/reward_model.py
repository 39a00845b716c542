"""Rewards from a trained reward model: an adapter over the base in training, a model of its own, or a server."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import nn

from tunesmith.config.schema import RunConfig
from tunesmith.core.errors import ModelError
from tunesmith.core.log import get_logger
from tunesmith.models.adapter_hooks import AdapterHooks
from tunesmith.models.forward import HiddenForward, base_model_of
from tunesmith.models.live_adapter import load_live_adapter
from tunesmith.models.value_head import (
    FILE,
    ValueHead,
    has_value_head,
    last_values,
    load_value_head,
    score_sequences,
)
from tunesmith.training.reference import without_adapter
from tunesmith.training.reward_server import ServerReward
from tunesmith.training.rewards import Reward, Sample

logger = get_logger(__name__)


def find_reward_model(config: RunConfig, model: nn.Module, tokenizer: Any) -> Reward:
    """The reward behind `reward_model` and `reward_model_type`.

    Args:
        config: with `reward_model`.
        model: in training; a reward adapter hangs on its base.
        tokenizer: goes with both.

    Raises:
        ModelError: it cannot be loaded, or is no reward model.
    """
    from tunesmith.models.hub import resolve_adapter
    from tunesmith.models.load import load_model

    name = config.reward_model or ""
    if config.reward_model_type == "api":
        return ServerReward(name)
    if config.reward_model_type == "lora":
        folder = resolve_adapter(name, cache_dir=config.cache_dir, token=config.hf_hub_token)
        if not has_value_head(folder):
            raise ModelError(f"reward_model: {folder} holds no {FILE}; train a reward model with stage: rm")
        return AdapterReward(model, folder)
    adapters = (config.reward_model_adapters,) if config.reward_model_adapters else ()
    bits = config.reward_model_quantization_bit
    own = config.replace(stage="rm", model_name_or_path=name, adapter_name_or_path=adapters, quantization_bit=bits)
    return ModelReward(load_model(own, tokenizer, trainable=False))


class ModelReward:
    """A reward model with weights of its own."""

    def __init__(self, model: nn.Module) -> None:
        self._model = model.eval().requires_grad_(False)

    def __call__(self, samples: Sequence[Sample]) -> list[float]:
        """What it makes of the last token of each answer."""
        return score_sequences(self._model, [sample.ids for sample in samples])


class AdapterReward:
    """A reward adapter over the base of the model in training: no second copy of the base.

    The adapter that is trained is switched off while the reward adapter's parts are added by hooks, so that peft never
    sees a second adapter, and none is saved.
    """

    def __init__(self, model: nn.Module, folder: Any) -> None:
        base: Any = base_model_of(model)
        self._model = model
        self._forward = HiddenForward(model, reads_hidden=True)
        self._adapter = load_live_adapter("reward", folder, base, version=0)
        self._hooks = AdapterHooks(base)
        self._hooks.prepare(self._adapter)
        self._head = ValueHead(base.config.get_text_config().hidden_size)
        load_value_head(self._head, folder)
        self._head.to(next(model.parameters()).device).requires_grad_(False)
        logger.info("reward model: adapter %s over the base in training", folder)

    def __call__(self, samples: Sequence[Sample]) -> list[float]:
        """What it makes of the last token of each answer."""
        with without_adapter(self._model), self._hooks.everywhere(self._adapter):
            return last_values(self._model, self._forward, self._head, [sample.ids for sample in samples])
