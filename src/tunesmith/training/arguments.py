"""From RunConfig to transformers' TrainingArguments: same names, with the few values that the trainer owns."""

from __future__ import annotations

import dataclasses
from typing import Any

from tunesmith.config.optimizer_rules import optimizer_family, updates_in_backward
from tunesmith.config.schema import RunConfig
from tunesmith.core import env
from tunesmith.core.errors import TrainingError
from tunesmith.core.log import get_logger
from tunesmith.models.dtype import device

logger = get_logger(__name__)

_OURS = {
    # A step of the trainer is a whole optimizer step; micro-batches are cut inside it by tokens (training/batches.py).
    "gradient_accumulation_steps",
    "per_device_train_batch_size",
    # Decided by models/dtype.py, models/load.py, models/aids.py, data/ and recipes/.
    "bf16",
    "fp16",
    "gradient_checkpointing",
    "gradient_checkpointing_kwargs",
    "activation_checkpointing",
    "neftune_noise_alpha",
    "do_train",
    "do_eval",
    "do_predict",
    "remove_unused_columns",
    "disable_tqdm",
    "label_names",
    "resume_from_checkpoint",
    "logging_nan_inf_filter",
    "report_to",
    "warmup_ratio",
    "warmup_steps",
    "train_sampling_strategy",
}


def rows_per_step(config: RunConfig) -> int:
    """Rows of one step on one device; with PPO prompts of all updates that are made from one batch of answers."""
    updates = config.ppo_buffer_size if config.stage == "ppo" else 1
    return config.per_device_train_batch_size * config.gradient_accumulation_steps * updates


def _fitting_optimizer(config: RunConfig) -> dict[str, Any]:
    """What an optimizer of ours does not work with, although it is the default."""
    changes: dict[str, Any] = {}
    if updates_in_backward(config) and config.max_grad_norm:
        logger.info("max_grad_norm is off: gradients are used up one by one, so the norm of all is never known in time")
        changes["max_grad_norm"] = 0.0
    if optimizer_family(config) == "schedule_free" and config.lr_scheduler_type == "linear":
        logger.info("the learning rate stays constant after its warm-up: %s averages instead", config.optim)
        changes["lr_scheduler_type"] = "constant_with_warmup"
    return changes


def training_arguments(config: RunConfig, *, autocast: str | None) -> Any:
    """Builds TrainingArguments.

    Args:
        config: every key that TrainingArguments owns passes through.
        autocast: `bf16`, `fp16` or None, from models/dtype.py.

    Raises:
        TrainingError: transformers refuses a value, such as `tf32` on a machine without it.
    """
    from transformers import TrainingArguments

    known = {field.name for field in dataclasses.fields(TrainingArguments) if field.init}
    values = {
        name: value
        for name, value in config.training_arguments().items()
        if name in config.explicit and name in known - _OURS
    }
    warmup: float = config.warmup_steps
    if not warmup and config.warmup_ratio:
        warmup = config.warmup_ratio  # transformers 5 reads a share below 1 as a ratio
    sampling = "sequential" if config.disable_shuffling else config.train_sampling_strategy
    on_cpu = config.use_cpu or device().type == "cpu"  # transformers takes bf16 there only where use_cpu says so
    values.update(
        output_dir=config.output_dir,
        per_device_train_batch_size=rows_per_step(config),
        gradient_accumulation_steps=1,
        bf16=autocast == "bf16",
        fp16=autocast == "fp16",
        do_train=config.do_train,
        do_eval=config.do_eval or config.eval_strategy != "no",
        remove_unused_columns=False,
        disable_tqdm=True,
        label_names=["labels"],
        logging_nan_inf_filter=False,
        report_to=list(config.report_to),
        warmup_steps=warmup,
        train_sampling_strategy=sampling,
        logging_steps=config.logging_steps,
        save_steps=config.save_steps,
        seed=config.seed,
        use_cpu=on_cpu,
        log_level="error",
        dataloader_pin_memory=config.dataloader_pin_memory and not on_cpu,
    )
    values.update(_fitting_optimizer(config))
    if env.world_size() == 1:
        values.pop("ddp_backend", None)  # transformers would look for a group that one process does not open
    if config.early_stopping_steps and "load_best_model_at_end" not in config.explicit:
        values["load_best_model_at_end"] = False
    if config.early_stopping_steps and config.metric_for_best_model is None:
        values["metric_for_best_model"] = "loss"
        values["greater_is_better"] = False
    try:
        arguments = TrainingArguments(**values)
    except ValueError as error:
        raise TrainingError(f"transformers refuses these keys on this machine: {error}") from error
    arguments._n_gpu = min(arguments.n_gpu, 1)  # with more, transformers copies the model to all of them in each step
    return arguments
