"""The peft configuration of a new adapter, as `lora_*`, `oft_*`, `pissa_*` and `additional_target` describe it."""

from __future__ import annotations

from typing import Any

from torch import nn

from tunesmith.config.schema import RunConfig
from tunesmith.core.errors import ModelError
from tunesmith.core.log import get_logger
from tunesmith.models.freeze import expanded_blocks
from tunesmith.models.targets import Targets, check_names, expert_parameters, find_targets, layers_of, module_names

logger = get_logger(__name__)


def new_adapter_config(config: RunConfig, model: nn.Module, new_ids: list[int]) -> Any:
    """A peft LoraConfig or OFTConfig.

    Args:
        config: `finetuning_type` decides between the two.
        model: the base model.
        new_ids: tokens that the run adds.

    Raises:
        ModelError: a named module is not there, or cannot be adapted so.
    """
    return _oft(config, model, new_ids) if config.finetuning_type == "oft" else _lora(config, model, new_ids)


def _lora(config: RunConfig, model: nn.Module, new_ids: list[int]) -> Any:
    """Tokens that the run adds get trainable rows of their own; the rest of the embedding stays frozen and tied."""
    from peft import LoraConfig, TaskType

    targets = _within_new_blocks(find_targets(config.lora_target, "lora_target", model), config, model)
    _check_experts(targets, config, model)
    additional = check_names(config.additional_target, "additional_target", model)
    is_tied = bool(model.config.get_text_config().tie_word_embeddings)
    embedding, head = leaf_of(model, model.get_input_embeddings()), leaf_of(model, model.get_output_embeddings())
    tied = {embedding, head} if is_tied else set()
    named = tied & {name.rsplit(".", 1)[-1] for name in targets.modules}
    if named:
        raise ModelError(
            f"lora_target: {min(map(str, named))} is tied: embedding and head of this model are one matrix, and an "
            "adapter on it could not be merged; name it in additional_target, which trains it whole"
        )
    indices: Any = None
    if new_ids and embedding and embedding not in additional:
        indices = {embedding: new_ids}
        if head and head not in additional and not is_tied:
            indices[head] = new_ids
    return LoraConfig(
        task_type=TaskType.CAUSAL_LM,
        r=config.lora_rank,
        lora_alpha=config.lora_alpha or 2 * config.lora_rank,
        lora_dropout=config.lora_dropout,
        target_modules=targets.modules,
        target_parameters=targets.parameters or None,
        modules_to_save=additional or None,
        use_rslora=config.use_rslora,
        use_dora=config.use_dora,
        init_lora_weights=lora_start(config),
        trainable_token_indices=indices,
        ensure_weight_tying=bool(tied & {name.rsplit(".", 1)[-1] for name in additional}),
    )


def lora_start(config: RunConfig) -> bool | str:
    """Peft's name for how new matrices start."""
    if not config.pissa_init:
        return True
    return "pissa" if config.pissa_iter == -1 else f"pissa_niter_{config.pissa_iter}"


def _oft(config: RunConfig, model: nn.Module, new_ids: list[int]) -> Any:
    from peft import OFTConfig, TaskType

    targets = _within_new_blocks(find_targets(config.oft_target, "oft_target", model), config, model)
    if targets.parameters:
        raise ModelError(f"oft_target: {targets.parameters[0]} holds routed experts, which only lora can adapt")
    additional = check_names(config.additional_target, "additional_target", model)
    if new_ids and leaf_of(model, model.get_input_embeddings()) not in additional:
        raise ModelError(
            "new tokens need trained rows of the embedding, which oft adapters do not have: use finetuning_type: lora, "
            "or name the embedding in additional_target"
        )
    _check_blocks(config, model, targets)
    return OFTConfig(
        task_type=TaskType.CAUSAL_LM,
        r=config.oft_rank,
        oft_block_size=0 if config.oft_rank else config.oft_block_size,
        module_dropout=config.module_dropout,
        target_modules=targets.modules,
        modules_to_save=additional or None,
    )


def _check_blocks(config: RunConfig, model: nn.Module, targets: Targets) -> None:
    """A rotation's blocks must fill a layer's input; peft would take another size with a warning."""
    name = "oft_rank" if config.oft_rank else "oft_block_size"
    value = getattr(config, name)
    for module_name in module_names(targets, model):
        width = getattr(model.get_submodule(module_name), "in_features", None)
        if width and width % value:
            sizes = [n for n in range(2, 257) if width % n == 0]
            raise ModelError(f"{name}: {value} does not divide the {width} inputs of {module_name}; {sizes} do")


def _within_new_blocks(targets: Targets, config: RunConfig, model: nn.Module) -> Targets:
    """With `use_llama_pro` only the modules of added blocks."""
    if not config.use_llama_pro:
        return targets
    prefix, layers = layers_of(model)
    inside = tuple(f"{prefix}.{number}." for number in expanded_blocks(model, config, len(layers)))
    return Targets([name for name in module_names(targets, model) if name.startswith(inside)], targets.parameters)


def _check_experts(targets: Targets, config: RunConfig, model: nn.Module) -> None:
    """What peft cannot do on expert weights; and that they stay frozen where they are not named."""
    if not targets.parameters:
        if expert_parameters(model):
            logger.info("routed experts stay frozen; lora_target: all,experts trains them, too")
        return
    for name in ("lora_dropout", "use_dora", "pissa_init", "use_llama_pro"):
        if getattr(config, name):
            raise ModelError(f"{name} cannot be used on routed experts ({', '.join(targets.parameters)})")


def leaf_of(model: nn.Module, wanted: nn.Module | None) -> str | None:
    """The last part of a module's name, as peft's keys want it."""
    return next((name.rsplit(".", 1)[-1] for name, module in model.named_modules() if module is wanted), None)
