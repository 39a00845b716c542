"""Key names of transformers 4 and of older LLaMA-Factory: renamed with a warning, or left out by name."""

from __future__ import annotations

from tunesmith.config.entries import Entry, Word, is_null

RENAMED = {
    "evaluation_strategy": "eval_strategy",
    "no_cuda": "use_cpu",
    "per_gpu_train_batch_size": "per_device_train_batch_size",
    "per_gpu_eval_batch_size": "per_device_eval_batch_size",
    "include_tokens_per_second": "include_effective_tokens_per_second",
    "push_to_hub_model_id": "hub_model_id",
    "push_to_hub_token": "hub_token",
    "checkpoint_dir": "adapter_name_or_path",
    "quantization": "quantization_bit",
    "num_layer_trainable": "freeze_trainable_layers",
    "name_module_trainable": "freeze_trainable_modules",
    "dpo_beta": "pref_beta",
    "dpo_loss": "pref_loss",
    "dpo_ftx": "pref_ftx",
    "max_source_length": "cutoff_len",
    "cache_path": "tokenized_path",
    "sft_packing": "packing",
    "preprocessing_num_processes": "preprocessing_num_workers",
}
"""Old name -> key that took its place."""

_GONE = "transformers dropped it"
_SHARDING = "it belongs to sharded training, which is not built yet"
DROPPED = {
    "use_mps_device": "the device is found by itself",
    "include_inputs_for_metrics": "the built-in metrics need nothing more",
    "fp16_opt_level": "it was for apex, which is gone",
    "half_precision_backend": "torch is the only one left",
    "fp16_backend": "torch is the only one left",
    "past_index": _GONE,
    "tpu_num_cores": _GONE,
    "tpu_metrics_debug": _GONE,
    "fsdp_min_num_params": _SHARDING,
    "fsdp_transformer_layer_cls_to_wrap": _SHARDING,
    "push_to_hub_organization": "put it before the name in hub_model_id",
    "mp_parameters": _GONE,
    "torchdynamo": _GONE,
    "ray_scope": _GONE,
    "jit_mode_eval": _GONE,
    "use_ipex": _GONE,
    "use_legacy_prediction_loop": _GONE,
    "dispatch_batches": "set it in accelerator_config",
    "split_batches": "set it in accelerator_config",
    "reserved_label_len": "prompts and answers share cutoff_len by their lengths",
    "plot_loss_only": "plot_loss draws all curves",
    "visual_inputs": "the model says whether it takes images",
}
"""Old name -> why nothing took its place."""

SPECIAL = ("save_safetensors", "group_by_length", "adafactor")
NAMES = (*RENAMED, *DROPPED, *SPECIAL)
"""All old names that are known."""

_FALSE = ("false", "no", "off", "0", "n", "f")


def old_names_of(key: str) -> tuple[str, ...]:
    """The old names that are mapped onto `key`."""
    special = {"train_sampling_strategy": ("group_by_length",), "optim": ("adafactor",)}
    return tuple(old for old, new in RENAMED.items() if new == key) + special.get(key, ())


def rename(entries: list[Entry]) -> tuple[list[Entry], list[str]]:
    """Puts today's keys for old names.

    Returns:
        The entries under today's keys, and a warning for each old name.
    """
    present = {entry.key for entry in entries}
    kept: list[Entry] = []
    warnings: list[str] = []
    for entry in entries:
        if entry.key not in NAMES:
            kept.append(entry)
            continue
        successor = _successor(entry)
        place = f"{entry.where}: " if entry.where else ""
        if isinstance(successor, str):
            warnings.append(f"{place}{entry.key} is ignored: {successor}")
        elif successor.key in present:
            warnings.append(f"{place}{entry.key} is ignored: {successor.key} is its name now and is set, too")
        else:
            kept.append(successor)
            shown = "" if entry.key in RENAMED else f": {successor.value}"  # a token must not be shown
            warnings.append(f"{place}{entry.key} is an old name, taken as {successor.key}{shown}")
    return kept, warnings


def _successor(entry: Entry) -> Entry | str:
    """The entry that stands for an old one, or why there is none."""
    if entry.key in RENAMED:
        return Entry(RENAMED[entry.key], entry.value, entry.where)
    if entry.key in DROPPED:
        return DROPPED[entry.key]
    is_off = is_null(entry.value) or str(entry.value).lower() in _FALSE
    if entry.key == "save_safetensors":
        return "weights are always safetensors"
    if is_off:
        return "off is the default"
    if entry.key == "group_by_length":
        return Entry("train_sampling_strategy", Word("group_by_length"), entry.where)
    return Entry("optim", Word("adafactor"), entry.where)
