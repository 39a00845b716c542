"""README.md of a trained folder: the model card that hubs read."""

from __future__ import annotations

from typing import Any

from tunesmith import __version__
from tunesmith.config.result import ADAPTER_TYPES
from tunesmith.config.schema import RunConfig


def model_card(config: RunConfig, state: Any) -> str:
    """The card's text.

    Args:
        config: the run's configuration.
        state: transformers' TrainerState at the end.
    """
    is_adapter = config.finetuning_type in ADAPTER_TYPES
    losses = [entry["loss"] for entry in state.log_history if "loss" in entry]
    evals = [entry["eval_loss"] for entry in state.log_history if "eval_loss" in entry]
    lines = [
        "---",
        f"library_name: {'peft' if is_adapter else 'transformers'}",
        f"base_model: {config.model_name_or_path}",
        "tags:",
        "- tunesmith",
        "- llama-factory",
        f"- {config.finetuning_type}",
        "---",
        "",
        f"# {config.model_name_or_path}: {config.stage} with {config.finetuning_type}",
        "",
        f"Trained with Tunesmith {__version__} on {', '.join(config.dataset)}.",
        "",
        "| setting | value |",
        "| --- | --- |",
    ]
    names = ["template", "cutoff_len", "learning_rate", "num_train_epochs", "lr_scheduler_type", "optim", "seed"]
    if config.finetuning_type == "lora":
        names += ["lora_rank", "lora_alpha", "lora_dropout"]
    elif is_adapter:
        names += ["oft_rank", "oft_block_size", "module_dropout"]
    lines += [f"| {name} | {getattr(config, name)} |" for name in names]
    rows = config.per_device_train_batch_size * config.gradient_accumulation_steps
    lines += [f"| rows a step | {rows} |", f"| steps | {state.global_step} |"]
    if losses:
        lines.append(f"| training loss, first and last logged | {losses[0]:.4f}, {losses[-1]:.4f} |")
    if evals:
        lines.append(f"| evaluation loss, last | {evals[-1]:.4f} |")
    lines += ["", "The whole configuration is in `training_args.yaml`.", ""]
    return "\n".join(lines)
