"""Loading a base model, with or without adapters, for training or for answering. Finding its files is hub.py's work."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn

from tunesmith.config.result import ADAPTER_TYPES
from tunesmith.config.schema import RunConfig
from tunesmith.core.errors import ModelError
from tunesmith.core.log import get_logger
from tunesmith.models import attention, depths, rope
from tunesmith.models.adapters import apply_finetuning, count_parameters, load_adapter, merge_adapters
from tunesmith.models.beside import save_beside
from tunesmith.models.checkpointing import enable_checkpointing, upcast_norms, wants_checkpointing
from tunesmith.models.dtype import device, inference_dtype, training_precision
from tunesmith.models.float8 import apply_float8
from tunesmith.models.forward import base_model_of
from tunesmith.models.fused import fuse
from tunesmith.models.hub import resolve_adapter, resolve_model
from tunesmith.models.kernels import apply_liger, load_with_unsloth
from tunesmith.models.linear import has_quantized_layers
from tunesmith.models.provenance import check_provenance
from tunesmith.models.quantize import check_trainable, finish_loading, plan_loading
from tunesmith.models.value_head import attach_value_head
from tunesmith.models.vocabulary import fit_vocabulary

logger = get_logger(__name__)


@contextmanager
def quiet_transformers() -> Iterator[None]:
    """Silences transformers' own bars and notes while it loads; errors still come as exceptions."""
    from transformers.utils import logging as hf_logging

    level = hf_logging.get_verbosity()
    hf_logging.set_verbosity_error()
    hf_logging.disable_progress_bar()
    try:
        yield
    finally:
        hf_logging.set_verbosity(level)


def base_folder(model: nn.Module) -> Path:
    """The folder that the base model was loaded from."""
    return Path(base_model_of(model).config._name_or_path)


def stored_dtype(folder: Path) -> torch.dtype:
    """The dtype that the checkpoint's config.json names; fp32 when it names none."""
    try:
        raw = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(f"{folder} has no readable config.json: {error}") from error
    name = raw.get("dtype") or raw.get("torch_dtype") or (raw.get("text_config") or {}).get("dtype") or "float32"
    return getattr(torch, str(name).removeprefix("torch."), torch.float32)


def load_base(
    config: RunConfig, folder: Path, dtype: torch.dtype, implementation: str, model_config: Any = None
) -> nn.Module:
    """The model of a folder, or one of its shape with random weights (`train_from_scratch`).

    Args:
        config: `train_from_scratch`, `trust_remote_code`, `quantization_bit` and its kin.
        folder: config.json and weights.
        dtype: of all weights.
        implementation: of attention.
        model_config: transformers' configuration where it is not just config.json.

    Raises:
        ModelError: it cannot be loaded, weights are missing, or it cannot be quantised as the keys say.
    """
    from transformers import AutoModelForCausalLM

    model_config = model_config or read_config(config, folder)
    plan = plan_loading(config, folder, model_config, dtype)
    common: dict[str, Any] = {"trust_remote_code": config.trust_remote_code, "config": model_config, **plan.arguments}
    try:
        with quiet_transformers():
            if config.train_from_scratch:
                return AutoModelForCausalLM.from_config(model_config, dtype=dtype, attn_implementation=implementation)
            model, info = AutoModelForCausalLM.from_pretrained(
                str(folder), dtype=dtype, attn_implementation=implementation, output_loading_info=True, **common
            )
    except (OSError, ValueError, RuntimeError, KeyError, ImportError) as error:
        raise ModelError(f"cannot load the model in {folder}: {str(error).strip().splitlines()[0]}") from error
    if depths.is_routed(model_config):
        depths.restore(model, folder)
    missing = sorted(info["missing_keys"])
    if missing:
        raise ModelError(
            f"{folder} lacks {len(missing)} weights of its own architecture (first: {missing[0]}): "
            "the download is not whole, or config.json belongs to another model"
        )
    if plan.is_quantized:
        finish_loading(model, plan, config, dtype)
    return model


def read_config(config: RunConfig, folder: Path) -> Any:
    """Transformers' configuration of a model's folder.

    Raises:
        ModelError: config.json is not one that transformers knows.
    """
    from transformers import AutoConfig

    try:
        with quiet_transformers():
            return AutoConfig.from_pretrained(str(folder), trust_remote_code=config.trust_remote_code)
    except (OSError, ValueError, RuntimeError, KeyError, ImportError) as error:
        raise ModelError(f"cannot load the model in {folder}: {str(error).strip().splitlines()[0]}") from error


def load_model(config: RunConfig, tokenizer: Any, *, trainable: bool, resume: Path | None = None) -> nn.Module:
    """Loads the base model and puts on it what the configuration names.

    Args:
        config: `model_name_or_path`, `adapter_name_or_path`, `finetuning_type`, dtype and attention keys.
        tokenizer: decides the number of embedding rows.
        trainable: for training: rows end to end, trained weights per `finetuning_type`; else for answering: adapters
            are merged in order except the last one, which stays live.
        resume: checkpoint that the trainer will load weights from; for training only.

    Returns:
        The model, on its device, in train or eval mode.

    Raises:
        ModelError: files are missing or do not fit.
    """
    from transformers import set_seed

    attention.register()
    resolved = resolve_model(
        config.model_name_or_path or "",
        revision=config.model_revision,
        cache_dir=config.cache_dir,
        token=config.hf_hub_token,
    )
    adapters = _find_adapters(config, resolved.path)
    model_config = read_config(config, resolved.path)
    is_stretched = rope.settle(config, model_config, adapters)
    if config.mixture_of_depths == "load" and not depths.is_routed(model_config):
        raise ModelError("mixture_of_depths: load, but this model was not converted; train with convert first")
    if trainable:
        set_seed(config.seed)  # new adapters and fresh weights are random: the seed must come before them
        model = _trainable_base(config, resolved.path, model_config)
        new_ids = fit_vocabulary(model, tokenizer, config)
        precision = training_precision(config, stored_dtype(resolved.path))
        model = _announce(apply_finetuning(model, config, new_ids, precision.trained, adapters, resume), config)
        if is_stretched and config.finetuning_type in ADAPTER_TYPES:
            save_beside(model, lambda folder: rope.write_beside(folder, model_config))
        if needs_value_head(config):
            folders = [*reversed(adapters), resolved.path]
            attach_value_head(model, folders, starts_at_zero=config.stage == "ppo")
        if precision.autocast is None and (config.use_cpu or device().type == "cpu"):
            fuse(model)
        return model.train()
    dtype = inference_dtype(config, stored_dtype(resolved.path))
    # A model that only scores keeps no cache: its sequences can lie end to end.
    find = attention.training_implementation if needs_value_head(config) else attention.inference_implementation
    model = load_base(config, resolved.path, dtype, find(config.flash_attn), model_config)
    rope.forget_lengths(model)
    fit_vocabulary(model, tokenizer, config)
    if adapters:
        model = load_adapter(merge_adapters(model, adapters[:-1]), adapters[-1])
    if needs_value_head(config):
        attach_value_head(model, [*reversed(adapters), resolved.path], must_exist=True)
    return place(model, config).eval()


def place(model: nn.Module, config: RunConfig) -> nn.Module:
    """Puts a model on its device; quantised layers are where they were made."""
    return model if has_quantized_layers(model) else model.to("cpu" if config.use_cpu else device())


def _trainable_base(config: RunConfig, folder: Path, model_config: Any) -> nn.Module:
    """The base model in its number formats, with the kernels and the checkpointing of training."""
    check_trainable(config, folder)
    precision = training_precision(config, stored_dtype(folder))
    logger.info("%s", precision.reason)
    if config.use_unsloth:
        model = load_with_unsloth(config, folder, precision.weights)
    else:
        implementation = attention.training_implementation(config.flash_attn)
        model = load_base(config, folder, precision.weights, implementation, model_config)
    rope.forget_lengths(model)
    if config.mixture_of_depths == "convert":
        if depths.is_routed(model_config):
            raise ModelError("mixture_of_depths: convert, but this model is converted already; set load")
        depths.convert(model)
    apply_float8(model, config)
    apply_liger(model, config)
    if config.upcast_layernorm:
        logger.info("upcast_layernorm: %d norm layers are held in float32 now", upcast_norms(model))
    model.config.use_cache = False
    if wants_checkpointing(config):
        enable_checkpointing(model, config)
    return model


def load_frozen(
    config: RunConfig, tokenizer: Any, name: str, adapters: Sequence[str] = (), bits: int | None = None
) -> nn.Module:
    """A second model that is asked and never trained, with adapters merged into it; nothing random is drawn.

    Args:
        config: of the run; precision, attention, device and library of quantised weights are as in training.
        tokenizer: of the model in training.
        name: the model.
        adapters: merged in order; one that lies on quantised weights stays apart.
        bits: of its weights; None: not quantised.

    Raises:
        ModelError: files are missing or do not fit, or the model has tokens of its own.
    """
    attention.register()
    cache_dir, token = config.cache_dir, config.hf_hub_token
    folder = resolve_model(name, revision=config.model_revision, cache_dir=cache_dir, token=token).path
    dtype = training_precision(config, stored_dtype(folder)).weights
    found = [resolve_adapter(adapter, cache_dir=cache_dir, token=token) for adapter in adapters]
    model_config = read_config(config, folder)
    rope.settle(config, model_config, found)
    with torch.random.fork_rng():
        implementation = attention.training_implementation(config.flash_attn)
        own = config.replace(train_from_scratch=False, quantization_bit=bits)
        model = load_base(own, folder, dtype, implementation, model_config)
        rope.forget_lengths(model)
        if name == config.model_name_or_path:
            fit_vocabulary(model, tokenizer, config)
        else:
            _check_tokens(tokenizer, model, folder)
    if found and has_quantized_layers(model):
        model = load_adapter(merge_adapters(model, found[:-1]), found[-1])
    else:
        model = merge_adapters(model, found)
    model.config.use_cache = False
    return place(model, config).eval().requires_grad_(False)


def _check_tokens(tokenizer: Any, model: nn.Module, folder: Path) -> None:
    """Ids must mean the same to both models."""
    from tunesmith.models.tokenizer import read_tokenizer

    rows = base_model_of(model).get_input_embeddings().weight.shape[0]
    if len(tokenizer) > rows:
        raise ModelError(f"{folder} has {rows} tokens, the model in training {len(tokenizer)}: it cannot read its rows")
    theirs = read_tokenizer(folder).get_vocab()
    ours = tokenizer.get_vocab()
    other = next((token for token, number in theirs.items() if ours.get(token, number) != number), None)
    if other is not None:
        raise ModelError(
            f"{folder} has another tokenizer than the model in training (first difference: {other!r}); "
            "a reference must read the same token ids"
        )


def needs_value_head(config: RunConfig) -> bool:
    """Whether the model of this run gives a number for a token or a sequence: a reward model, or PPO's critic."""
    return (config.stage == "rm" and config.command in ("train", "api")) or (
        config.stage == "ppo" and config.command == "train"
    )


def _find_adapters(config: RunConfig, base: Path) -> list[Path]:
    """The adapters' folders, each checked against the base and the adapters before it."""
    found: list[Path] = []
    for name in config.adapter_name_or_path:
        path = resolve_adapter(name, cache_dir=config.cache_dir, token=config.hf_hub_token)
        check_provenance(path, base, force=config.force_base, below=found)
        found.append(path)
    return found


def _announce(model: nn.Module, config: RunConfig) -> nn.Module:
    """Says how much is trained; nothing is an error."""
    trainable, total = count_parameters(model)
    if trainable == 0:
        raise ModelError("nothing is trainable with these keys: the run would train on nothing")
    logger.info("trainable weights: %s of %s (%.3f %%)", f"{trainable:,}", f"{total:,}", 100 * trainable / total)
    if config.print_param_status:
        for name, parameter in model.named_parameters():
            logger.info("  %s %s %s", name, parameter.dtype, "trained" if parameter.requires_grad else "frozen")
    return model
