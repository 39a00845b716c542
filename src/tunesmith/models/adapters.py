"""What is trained: an adapter, some layers, or everything; and adapters put on, merged or continued."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from tunesmith.config.result import ADAPTER_TYPES
from tunesmith.config.schema import RunConfig
from tunesmith.core.errors import ModelError
from tunesmith.core.log import get_logger
from tunesmith.models import loftq, pissa
from tunesmith.models.beside import save_adapter_only
from tunesmith.models.freeze import freeze
from tunesmith.models.linear import count_weights, has_quantized_layers, is_linear, is_quantized
from tunesmith.models.new_adapter import new_adapter_config
from tunesmith.models.patches.oft_dropout import drop_rotations
from tunesmith.models.targets import find_targets, module_names

logger = get_logger(__name__)


def load_adapter(model: nn.Module, path: Path, *, trainable: bool = False) -> Any:
    """Puts a saved adapter on a model.

    Raises:
        ModelError: the folder holds no adapter, or weights are missing, unexpected or of another shape.
    """
    from peft import PeftConfig, PeftModel

    if not (path / "adapter_config.json").is_file():
        raise ModelError(f"adapter_name_or_path: {path} holds no adapter_config.json; give the folder a training wrote")
    try:
        settings = PeftConfig.from_pretrained(str(path))
        kept, start = getattr(settings, "init_lora_weights", None), pissa.read_start(path)
        if start is not None and pissa.is_pissa(settings):
            settings.init_lora_weights = True  # the start is known: none is to be computed
        with warnings.catch_warnings():
            # peft only warns of what _check_complete refuses.
            warnings.filterwarnings("ignore", message="Found missing adapter keys")
            loaded = PeftModel.from_pretrained(model, str(path), is_trainable=trainable, config=settings)
    except (RuntimeError, ValueError, KeyError, TypeError) as error:
        raise ModelError(f"adapter {path} does not fit this base model: {str(error).splitlines()[0]}") from error
    _check_complete(loaded, path)
    loftq.restore(loaded, path)
    if isinstance(kept, str) and kept.startswith("pissa"):
        _restore_pissa(loaded, path, kept, start)
    return loaded


def _restore_pissa(model: Any, path: Path, kept: str, start: pissa.Start | None) -> None:
    """Takes the principal part out of the base, as it was when the adapter was trained."""
    if start is None:
        if "niter" in kept:
            logger.warning(
                "the PiSSA adapter %s came without %s: its start is computed again by a random decomposition, so "
                "answers may differ from those in training",
                path,
                pissa.START,
            )
        return
    pissa.take_out(model, start, fill=False)
    model.active_peft_config.init_lora_weights = kept
    pissa.save_with_start(model, start)


def _check_complete(loaded: Any, path: Path) -> None:
    """An adapter that loaded only half answers as the base does; peft itself only warns."""
    from peft import get_peft_model_state_dict
    from safetensors import safe_open

    weights = path / "adapter_model.safetensors"
    if not weights.is_file():
        return
    with safe_open(str(weights), "pt") as handle:
        stored = set(handle.keys())
    expected = set(get_peft_model_state_dict(loaded, save_embedding_layers=False))
    missing, unexpected = sorted(expected - stored), sorted(stored - expected)
    unexpected = [key for key in unexpected if "embed" not in key and "lm_head" not in key]
    if missing or unexpected:
        raise ModelError(
            f"adapter {path} is not whole: {len(missing)} tensors missing, {len(unexpected)} unexpected "
            f"(first: {(missing + unexpected)[0]}); it was cut or belongs to another base model"
        )


def merge_adapters(model: nn.Module, paths: Iterable[Path]) -> nn.Module:
    """Merges adapters into the base in order, in memory."""
    paths = list(paths)
    if paths and has_quantized_layers(model):
        raise ModelError(
            f"the adapter {paths[0]} would be merged into quantised weights, which rounds it away; export it into the "
            "unquantised model first"
        )
    for path in paths:
        model = load_adapter(model, path).merge_and_unload()
        logger.info("merged adapter %s into the base", path)
    return model


def apply_finetuning(
    model: nn.Module,
    config: RunConfig,
    new_ids: list[int],
    trained_dtype: torch.dtype,
    adapters: Sequence[Path] = (),
    resume: Path | None = None,
) -> nn.Module:
    """Makes the right weights trainable and all others frozen.

    Args:
        model: the base model.
        config: `finetuning_type` and its keys.
        new_ids: tokens that were added; LoRA trains their rows alone.
        trained_dtype: dtype of trained weights.
        adapters: folders of `adapter_name_or_path`: the last one is continued, the others are merged into the base;
            all are merged with `create_new_adapter`.
        resume: checkpoint whose weights are loaded afterwards; an adapter starts as it started there.

    Returns:
        The model to train (a PeftModel for adapters).
    """
    if config.finetuning_type in ADAPTER_TYPES:
        model = _apply_adapter(model, config, new_ids, adapters, resume)
        drop_rotations(model, getattr(model.active_peft_config, "module_dropout", 0.0))
        save_adapter_only(model)
    elif config.finetuning_type == "freeze":
        freeze(model, config)
    else:
        model.requires_grad_(True)
    for parameter in model.parameters():
        if parameter.requires_grad and parameter.dtype != trained_dtype:
            parameter.data = parameter.data.to(trained_dtype)
    return model


def _apply_adapter(
    model: nn.Module, config: RunConfig, new_ids: list[int], paths: Sequence[Path], resume: Path | None
) -> nn.Module:
    from peft import get_peft_model

    if paths and not config.create_new_adapter:
        model = merge_adapters(model, paths[:-1])
        logger.info("continuing adapter %s", paths[-1])
        return _continue(model, config, paths[-1])
    model = merge_adapters(model, paths)
    settings = new_adapter_config(config, model, new_ids)
    if not config.pissa_init:
        plain = get_peft_model(model, settings, autocast_adapter_dtype=False)
        if config.loftq_init:
            loftq.start(plain, resume)
        return plain
    kept, settings.init_lora_weights = settings.init_lora_weights, True
    peft_model = get_peft_model(model, settings, autocast_adapter_dtype=False)
    start = (pissa.read_start(resume) if resume else None) or pissa.principal_parts(peft_model, config.pissa_iter)
    pissa.take_out(peft_model, start, fill=True)
    settings.init_lora_weights = kept
    pissa.save_with_start(peft_model, start)
    return peft_model


_FIXED = {
    "lora": {
        "lora_rank": "r",
        "lora_alpha": "lora_alpha",
        "lora_dropout": "lora_dropout",
        "use_rslora": "use_rslora",
        "use_dora": "use_dora",
    },
    "oft": {"oft_rank": "r", "oft_block_size": "oft_block_size", "module_dropout": "module_dropout"},
}
"""Type -> key -> field of peft's configuration that it is when an adapter starts."""


def _continue(model: nn.Module, config: RunConfig, path: Path) -> Any:
    """An adapter that is trained on keeps its shape; keys that ask for another one would change nothing."""
    key = f"{config.finetuning_type}_target"
    asked = None
    if config.asks_for(key):
        asked = set(module_names(find_targets(getattr(config, key), key, model), model))
    loaded = load_adapter(model, path, trainable=True)
    settings = loaded.active_peft_config
    kind = str(settings.peft_type.value).lower()
    fix = "or train a new adapter on top: create_new_adapter: true"
    if kind != config.finetuning_type:
        raise ModelError(
            f"finetuning_type: {config.finetuning_type}, but the adapter {path} that is trained on is of type {kind}; "
            f"set it to that, {fix}"
        )
    for name, field in _FIXED[kind].items():
        wished, has = getattr(config, name), getattr(settings, field)
        if config.asks_for(name) and wished != has:
            raise ModelError(f"{name}: {wished}, but the adapter {path} that is trained on has {has}; drop it, {fix}")
    adapted = {name for name, module in loaded.get_base_model().named_modules() if hasattr(module, "base_layer")}
    if asked is not None and asked != {name for name in adapted if not name.endswith(("experts", ".base_layer"))}:
        raise ModelError(f"{key}: the adapter {path} that is trained on has other modules; drop the key, {fix}")
    return loaded


def count_parameters(model: nn.Module) -> tuple[int, int]:
    """(trainable, all) numbers of weights; tied weights count once, quantised ones as what they stand for."""
    layers = [module for module in model.modules() if is_linear(module) and is_quantized(module)]
    quantised = {id(parameter) for layer in layers for parameter in layer.parameters()}
    plain = {id(parameter): parameter for parameter in model.parameters() if id(parameter) not in quantised}
    trainable = sum(p.numel() for p in plain.values() if p.requires_grad)
    return trainable, sum(p.numel() for p in plain.values()) + sum(count_weights(layer) for layer in layers)
