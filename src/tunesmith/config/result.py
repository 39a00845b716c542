"""The configuration that loads what a run has trained."""

from __future__ import annotations

from tunesmith.config.schema import RunConfig

ADAPTER_TYPES = ("lora", "oft")
"""Values of `finetuning_type` whose result is an adapter; the others write whole models."""


def merged_before(config: RunConfig) -> list[str]:
    """Adapters that a run merges into the base before its own adapter."""
    names = list(config.adapter_name_or_path)
    return names if config.create_new_adapter else names[:-1]


def with_result(config: RunConfig) -> RunConfig:
    """The same configuration over the saved files of its own training, as any other program would load them."""
    output_dir = str(config.output_dir)
    if config.finetuning_type in ADAPTER_TYPES:
        adapters = [*merged_before(config), output_dir]
        return config.replace(adapter_name_or_path=adapters, create_new_adapter=False)
    return config.replace(model_name_or_path=output_dir, adapter_name_or_path=[])
