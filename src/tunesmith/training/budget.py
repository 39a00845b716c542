"""The token budget of a micro-batch for one run: what the user set, what a resume must keep, or what fits."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from tunesmith.config.schema import RunConfig
from tunesmith.core.log import get_logger
from tunesmith.data.growing import complete
from tunesmith.models import rope
from tunesmith.models.checkpointing import enable_checkpointing, wants_checkpointing
from tunesmith.models.forward import HiddenForward, base_model_of
from tunesmith.models.memory import activation_bytes_per_token, available_bytes, fitting_tokens
from tunesmith.training.arguments import rows_per_step
from tunesmith.training.checkpoints import manifest_of
from tunesmith.training.optimizers.memory import gradient_bytes, state_bytes

logger = get_logger(__name__)

_EXACT_KEYS = (
    "model_name_or_path",
    "stage",
    "pref_loss",
    "pref_beta",
    "pref_ftx",
    "packing",
    "template",
    "finetuning_type",
    "learning_rate",
    "lr_scheduler_type",
    "num_train_epochs",
    "max_steps",
    "optim",
    "seed",
    "cutoff_len",
    "weight_decay",
    "max_grad_norm",
    "warmup_steps",
    "warmup_ratio",
    "lora_rank",
    "lora_alpha",
    "lora_dropout",
    "lora_target",
    "freeze_trainable_layers",
)
"""Keys whose change makes a resumed run another run; it goes on, but the change is named."""


@dataclass(frozen=True, slots=True)
class MemoryPlan:
    """How a run is cut.

    Attributes:
        tokens: budget of a micro-batch.
        facts: what the checkpoints remember so that a resume repeats the same arithmetic.
    """

    tokens: int
    facts: dict[str, Any]


def _longest_row(prepared: Any, limit: float) -> int:
    """Tokens of the longest row; of one that may come, where rows are still growing and none can be over `limit`."""
    sets = [prepared.train, *(prepared.eval.values() if isinstance(prepared.eval, dict) else [prepared.eval])]
    found = [part for part in sets if part is not None]
    if max([1, *(part.longest for part in found)]) > limit:
        complete(prepared.train)
    return max([1, *(part.longest for part in found)])


def _optimizer_bytes(config: RunConfig, model: torch.nn.Module) -> int:
    """Gradients and optimizer states of the trained weights."""
    return gradient_bytes(config, model) + state_bytes(config, model)


def _measure(config: RunConfig, model: torch.nn.Module, forward: HiddenForward, prepared: Any) -> tuple[int, bool]:
    """(budget, whether checkpointing is on), switching checkpointing on when the longest row does not fit."""
    place = next(model.parameters()).device if not torch.cuda.is_available() else torch.device("cuda")
    if config.use_cpu:
        place = torch.device("cpu")
    is_on = wants_checkpointing(config)
    cost = activation_bytes_per_token(model, forward)
    free = available_bytes(place) - _optimizer_bytes(config, model)
    longest = _longest_row(prepared, 0.8 * free / cost)
    if not is_on and cost * longest > 0.8 * free and not config.disable_gradient_checkpointing:
        logger.info(
            "memory: the longest row (%d tokens) needs %.1f GiB of activations, %.1f GiB are free: "
            "gradient checkpointing is on (slower by about a third)",
            longest,
            cost * longest / 2**30,
            free / 2**30,
        )
        enable_checkpointing(base_model_of(model), config)
        cost = activation_bytes_per_token(model, forward)
        is_on = True
    budget = config.micro_batch_tokens or fitting_tokens(cost, place, _optimizer_bytes(config, model))
    logger.info(
        "micro-batches: up to %d tokens (%.2f MiB of activations a token, %.2f GiB at most)",
        budget,
        cost / 2**20,
        cost * max(budget, min(longest, budget * 64)) / 2**30,
    )
    return budget, is_on


def plan_memory(
    config: RunConfig, model: torch.nn.Module, forward: HiddenForward, prepared: Any, resume: Path | None
) -> MemoryPlan:
    """Chooses the budget and notes what must not change on a resume.

    Args:
        config: `micro_batch_tokens`, `gradient_checkpointing`.
        model: the model as it will be trained, still on the CPU.
        forward: how it is called.
        prepared: the rows.
        resume: checkpoint to go on from; its budget is kept unless the user sets one.
    """
    known = manifest_of(resume) if resume else {}
    kept = known.get("micro_batch_tokens")
    context = rope.context_of(base_model_of(model).config)
    rope.check_length(base_model_of(model).config, _longest_row(prepared, context or math.inf))
    if kept and not config.micro_batch_tokens:
        is_on = bool(known.get("gradient_checkpointing"))
        if is_on and not wants_checkpointing(config):
            enable_checkpointing(base_model_of(model), config)
        budget = int(kept)
        logger.info("micro-batches: up to %d tokens, as before the stop", budget)
    else:
        budget, is_on = _measure(config, model, forward, prepared)
    settings = {key: _as_json(getattr(config, key)) for key in _EXACT_KEYS}
    settings["rows_per_step"] = rows_per_step(config)
    facts = {
        "micro_batch_tokens": budget,
        "gradient_checkpointing": is_on,
        "settings": settings,
    }
    if known:
        _name_changes(known, {**facts, "data": prepared.train.digest() if prepared.train is not None else None})
    return MemoryPlan(budget, facts)


def _as_json(value: Any) -> Any:
    """As it comes back from the checkpoint's manifest."""
    return list(value) if isinstance(value, tuple) else value


def _name_changes(known: dict[str, Any], facts: dict[str, Any]) -> None:
    """Warns of everything that differs from the run that wrote the checkpoint."""
    if known.get("data") != facts["data"]:
        logger.warning("the training rows differ from those before the stop: the resume is not exact")
    old = known.get("settings", {})
    for key, value in facts["settings"].items():
        if key in old and old[key] != value:
            logger.warning("%s was %r before the stop and is %r now: the resume is not exact", key, old[key], value)
