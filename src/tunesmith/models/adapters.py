"""What is trained: LoRA adapters, some layers, or everything; and adapters put on, merged or continued."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from tunesmith.config.schema import RunConfig
from tunesmith.core.errors import ModelError
from tunesmith.core.lazy import nearest
from tunesmith.core.log import get_logger

logger = get_logger(__name__)


def linear_names(model: nn.Module) -> list[str]:
    """Leaf names of every linear layer but the output head: what `lora_target: all` means."""
    head = model.get_output_embeddings() if hasattr(model, "get_output_embeddings") else None
    names = {
        name.rsplit(".", 1)[-1]
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) and module is not head
    }
    return sorted(names)


def _check_names(wanted: Iterable[str], key: str, model: nn.Module) -> list[str]:
    """Refuses names that match no module: an adapter that hangs nowhere trains nothing."""
    parts = {part for name, _ in model.named_modules() for part in (name, name.rsplit(".", 1)[-1]) if part}
    wanted = list(wanted)
    for name in wanted:
        if name not in parts and not any(part.endswith("." + name) for part in parts):
            guess = nearest(name, parts)
            hint = f"; did you mean {guess!r}?" if guess else ""
            raise ModelError(f"{key}: this model has no module named {name!r}{hint} (linear: {linear_names(model)})")
    return wanted


def lora_config(config: RunConfig, model: nn.Module, new_ids: list[int]) -> Any:
    """The peft LoraConfig that the keys `lora_*`, `use_dora`, `use_rslora`, `additional_target` describe.

    Tokens that the run adds get trainable rows of their own; the rest of the embedding stays frozen and tied heads stay
    tied.
    """
    from peft import LoraConfig, TaskType

    targets = linear_names(model) if "all" in config.lora_target else list(config.lora_target)
    targets = _check_names(targets, "lora_target", model)
    additional = _check_names(config.additional_target, "additional_target", model)
    embedding, head = _leaf_of(model, model.get_input_embeddings()), _leaf_of(model, model.get_output_embeddings())
    indices: Any = None
    if new_ids and embedding and embedding not in additional:
        indices = {embedding: new_ids}
        if head and head not in additional and not model.config.get_text_config().tie_word_embeddings:
            indices[head] = new_ids
    return LoraConfig(
        task_type=TaskType.CAUSAL_LM,
        r=config.lora_rank,
        lora_alpha=config.lora_alpha or 2 * config.lora_rank,
        lora_dropout=config.lora_dropout,
        target_modules=targets,
        modules_to_save=additional or None,
        use_rslora=config.use_rslora,
        use_dora=config.use_dora,
        trainable_token_indices=indices,
        ensure_weight_tying=bool(model.config.get_text_config().tie_word_embeddings and additional),
    )


def _leaf_of(model: nn.Module, wanted: nn.Module | None) -> str | None:
    """The last part of a module's name, as peft's keys want it."""
    return next((name.rsplit(".", 1)[-1] for name, module in model.named_modules() if module is wanted), None)


def load_adapter(model: nn.Module, path: Path, *, trainable: bool = False) -> Any:
    """Puts a saved adapter on a model.

    Raises:
        ModelError: the folder holds no adapter, or weights are missing, unexpected or of another shape.
    """
    from peft import PeftModel

    if not (path / "adapter_config.json").is_file():
        raise ModelError(f"adapter_name_or_path: {path} holds no adapter_config.json; give the folder a training wrote")
    try:
        with warnings.catch_warnings():
            # peft only warns of what _check_complete refuses.
            warnings.filterwarnings("ignore", message="Found missing adapter keys")
            loaded = PeftModel.from_pretrained(model, str(path), is_trainable=trainable)
    except (RuntimeError, ValueError, KeyError) as error:
        raise ModelError(f"adapter {path} does not fit this base model: {str(error).splitlines()[0]}") from error
    _check_complete(loaded, path)
    return loaded


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
) -> nn.Module:
    """Makes the right weights trainable and all others frozen.

    Args:
        model: the base model.
        config: `finetuning_type` and its keys.
        new_ids: tokens that were added; LoRA trains their rows alone.
        trained_dtype: dtype of trained weights.
        adapters: folders of `adapter_name_or_path`: the last one is continued, the others are merged into the base;
            all are merged with `create_new_adapter`.

    Returns:
        The model to train (a PeftModel for LoRA).
    """
    if config.finetuning_type == "lora":
        model = _apply_lora(model, config, new_ids, adapters)
    elif config.finetuning_type == "freeze":
        _apply_freeze(model, config)
    else:
        model.requires_grad_(True)
    for parameter in model.parameters():
        if parameter.requires_grad and parameter.dtype != trained_dtype:
            parameter.data = parameter.data.to(trained_dtype)
    return model


def _apply_lora(model: nn.Module, config: RunConfig, new_ids: list[int], paths: Sequence[Path]) -> nn.Module:
    from peft import get_peft_model

    if paths and not config.create_new_adapter:
        model = merge_adapters(model, paths[:-1])
        logger.info("continuing adapter %s", paths[-1])
        return load_adapter(model, paths[-1], trainable=True)
    model = merge_adapters(model, paths)
    return get_peft_model(model, lora_config(config, model, new_ids), autocast_adapter_dtype=False)


def _layers(model: nn.Module) -> tuple[str, nn.ModuleList]:
    """The list of decoder layers, by name: the longest ModuleList of the model."""
    lists = [(name, module) for name, module in model.named_modules() if isinstance(module, nn.ModuleList)]
    if not lists:
        raise ModelError("finetuning_type: freeze finds no list of layers in this model; use lora or full")
    return max(lists, key=lambda item: len(item[1]))


def _apply_freeze(model: nn.Module, config: RunConfig) -> None:
    prefix, layers = _layers(model)
    count = config.freeze_trainable_layers
    if count == 0 or abs(count) > len(layers):
        raise ModelError(f"freeze_trainable_layers: {count} is not within 1..{len(layers)} (or -{len(layers)}..-1)")
    chosen = range(len(layers) - count, len(layers)) if count > 0 else range(-count)
    inner = {name for name, _ in layers[0].named_modules() if name} | {name for name, _ in layers[0].named_parameters()}
    inner |= {part for name in inner for part in name.split(".")}
    wanted = config.freeze_trainable_modules
    for name in () if "all" in wanted else wanted:
        if name not in inner:
            raise ModelError(f"freeze_trainable_modules: no module {name!r} in a layer; there are {sorted(inner)}")
    extra = _check_names(config.freeze_extra_modules, "freeze_extra_modules", model)
    model.requires_grad_(False)
    for name, parameter in model.named_parameters():
        parts = name.split(".")
        is_inside = name.startswith(f"{prefix}.")
        is_chosen = is_inside and any(name.startswith(f"{prefix}.{index}.") for index in chosen)
        in_layer = is_chosen and ("all" in wanted or any(part in wanted for part in parts))
        is_extra = not is_inside and any(part in extra for part in parts)
        parameter.requires_grad_(in_layer or is_extra)


def count_parameters(model: nn.Module) -> tuple[int, int]:
    """(trainable, all) numbers of weights; tied weights count once."""
    unique = {id(parameter): parameter for parameter in model.parameters()}
    trainable = sum(p.numel() for p in unique.values() if p.requires_grad)
    return trainable, sum(p.numel() for p in unique.values())
